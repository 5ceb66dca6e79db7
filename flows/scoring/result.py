"""What a run of ``score`` or ``rescore`` did, as one object for ``--json``."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from data_contracts.store.input_accounts import InputsDetails
from flows.engine.run import Run
from flows.engine.run_counts import RunCounts, SortedInputs
from tasks.fit.predictors import Predictor
from tasks.images.write_images import WrittenImages


@dataclass(frozen=True)
class ScoredVideos:
    """Names of videos by the result of a run.

    ``waiting``: files that may still be growing. ``without_video``: predictions exist, but the file does not.
    """

    scored: list[str]
    up_to_date: list[str]
    failed: list[str]
    quarantined: list[str]
    waiting: list[str]
    without_video: list[str]

    @classmethod
    def of(
        cls,
        found: SortedInputs,
        *,
        waiting: Collection[str] = (),
        without_video: Collection[str] = (),
        leave_out: Collection[str] = (),
    ) -> "ScoredVideos":
        """Return the names in their order. ``leave_out``: names of other inputs that were counted too."""
        names = found.done, found.up_to_date, found.failed, found.quarantined, waiting, without_video
        return cls(*(sorted(set(some) - set(leave_out)) for some in names))


@dataclass(frozen=True)
class UsedHead:
    """A head, the tasks that it serves, why it was chosen, and its post-processing (None: not tuned).

    ``backbone``: of a blend the names of all backbones, separated by commas.
    """

    tasks: list[str]
    head: str
    backbone: str
    why: str
    postprocessing: str | None


@dataclass(frozen=True)
class StageLine:
    """Why a unit failed, is quarantined, or could be used only in part."""

    stage: str
    unit: str
    cause: str


@dataclass(frozen=True)
class ScoreResult:
    """The result of ``score`` or ``rescore``.

    Attributes:
        counts: numbers of the last line.
        images: paths of images by result, and the number of faces in them; ``rescore`` has none.
        summary: rows of ``tables/summary.parquet`` for the videos of this run.
    """

    command: str
    store: str
    out: str
    counts: RunCounts
    videos: ScoredVideos
    images: WrittenImages
    files: list[str]
    heads: list[UsedHead]
    failures: list[StageLine]
    problems: list[StageLine]
    quarantined: list[StageLine]
    inputs: list[InputsDetails]
    summary: list[dict[str, Any]]


def describe_run(
    run: Run,
    command: str,
    *,
    out: object,
    videos: ScoredVideos,
    images: WrittenImages,
    files: Collection[object],
    predictors: Sequence[Predictor],
) -> ScoreResult:
    """Return the result of a run that has counted its inputs, and summarized its persons."""
    return ScoreResult(
        command=command,
        store=run.store.url,
        out=str(out),
        counts=run.counts,
        videos=videos,
        images=images,
        files=[str(path) for path in files],
        heads=[
            UsedHead(
                list(one.branches),
                one.head.name,
                ", ".join(dict.fromkeys(one.backbone.name for one in predictor.features)),
                one.why,
                one.postprocessing.name if one.postprocessing else None,
            )
            for predictor in predictors
            for one in predictor.heads
        ],
        failures=[StageLine(*one) for one in run.failures],
        problems=[StageLine(*one) for one in run.problems],
        quarantined=[StageLine(stage, unit, note.cause) for stage, unit, note in run.quarantined],
        inputs=run.inputs,
        summary=run.persons.to_pylist() if run.persons is not None else [],
    )
