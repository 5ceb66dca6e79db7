"""Stage ``tune_postprocessing``: tune smoothing, thresholds and class bias for one head, on folds of subjects."""

import contextlib
import hashlib
import io
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_contracts.details.heads import HeadDetails, PostprocessingDetails, TuningFigures
from data_contracts.errors import InputError
from data_contracts.schemas.outputs import CANDIDATES
from data_contracts.store.bundles import Bundle, list_bundles, read_file, write_manifest
from data_contracts.store.fingerprint import fingerprint, variant_name
from data_contracts.store.manifest import Manifest, StoredUnit
from data_contracts.store.store import Store
from data_contracts.vocabulary import BRANCHES_OF_TASK, NO_FACE, TaskName
from models.decisions.recipes import PostProcessingRecipe, get_postprocessing_recipe
from models.decisions.smoothing import NOMINAL_FRAMES_PER_SECOND, Smoothing
from models.decisions.subject_outputs import SubjectOutputs, rows_without_face
from models.heads.sequences import is_labelled
from models.tuning.blend_weights import ChosenWeights, FoldWeights, hold_out
from models.tuning.branch_search import Candidate
from models.tuning.folds import FOLDS, has_several_subjects_of_a_video
from models.tuning.tuning import tune_postprocessing
from tasks.fit.import_labels import labels_key
from tasks.fit.predict_outputs import read_subject
from tasks.fit.stored_heads import RULE_FILE
from tasks.fit.subject_features import label_arrays
from tasks.fit.subject_split import SubjectSplit
from tasks.units import Files, Job

CODE_VERSION = 2
CANDIDATES_FILE = "candidates.parquet"


# Name in the labels -> unit of a member's outputs of the subject; None: the member has no features of it.
MemberOutputs = Mapping[str, StoredUnit | None]


@dataclass(frozen=True)
class TunePostprocessingArgs:
    """The head, its outputs of the validation subjects, their labels, and how to tune.

    Attributes:
        outputs: name in the labels -> unit of the outputs.
        members: of a blend: the same of each member's outputs; None: it has none of the subject.
        weights: of a blend.
        frames_per_second: of the video of each subject; others have the nominal one.
    """

    head: str
    task: TaskName
    outputs: dict[str, StoredUnit]
    labels: Manifest
    recipe: PostProcessingRecipe
    frames_per_second: dict[str, float]
    members: tuple[MemberOutputs, ...] = ()
    weights: ChosenWeights | None = None


@dataclass(frozen=True)
class AdoptPostprocessingArgs:
    """A tuned post-processing, and the head that gets it."""

    tuned: Bundle
    head: str


def plan_tune_postprocessing(
    *,
    head: Bundle,
    outputs: Mapping[str, StoredUnit],
    labels: Manifest,
    split: SubjectSplit,
    recipe: PostProcessingRecipe,
    frames_per_second: Mapping[str, float],
    members: Sequence[Mapping[str, StoredUnit]] = (),
) -> Job[TunePostprocessingArgs]:
    """Plan the job that tunes on all validation subjects with outputs of the head (``outputs``, by subject).

    Validation subjects whose video is in the training set too are excluded. ``members``: of a blend, each one's
    outputs, for a held-out score whose weights are from the same folds. ``frames_per_second``: of the video of each
    subject; others have the nominal one.

    Raises:
        InputError: the recipe has a gate, and the outputs of the head are without the backbone's own expressions.
    """
    names = sorted(split.validation().items(), key=lambda pair: pair[1])
    used = {name: outputs[subject] for name, subject in names if subject in outputs}
    faces_are_missing = any(manifest.counts.get(NO_FACE) for _, manifest in used.values())
    is_grouped = has_several_subjects_of_a_video([key.value("subject") for key, _ in used.values()])
    task = HeadDetails.of(head).task
    if recipe.gate_levels and "expr" in BRANCHES_OF_TASK[task] and not HeadDetails.of(head).gate_classes:
        raise InputError(
            f"recipe {recipe.name}: its gate needs the backbone's own expressions beside the outputs of {head.name}, "
            "found none, because it is a blend or its features are those of an earlier version; extract and fit "
            "again, or leave out gate_levels"
        )
    subjects = sorted(key.value("subject") for key, _ in used.values())
    rates = {subject: frames_per_second[subject] for subject in subjects if subject in frames_per_second}
    job_fingerprint = fingerprint(
        stage="tune_postprocessing",
        version=CODE_VERSION,
        outputs=[(key.value("subject"), manifest.identity) for key, manifest in used.values()],
        labels=labels.identity,
        folds=FOLDS,
        **recipe.fingerprint_parts(task),
        **({"frames_per_second": rates} if recipe.needs_frame_rates else {}),
        # Without videos of several subjects, folds of videos are the folds of subjects of earlier versions.
        **({"folds_of": "videos"} if is_grouped else {}),
        # Earlier versions scored interpolated rows with recipe ``paper`` too.
        **({"without_face": "excluded"} if recipe.scored_rows == "published" and faces_are_missing else {}),
    )
    arguments = TunePostprocessingArgs(
        head.name,
        task,
        used,
        labels,
        recipe,
        rates,
        members=tuple({name: of.get(subject) for name, subject in names if name in used} for of in members),
        weights=chosen_weights(HeadDetails.of(head)) if members else None,
    )
    name = variant_name(f"{head.name}-{recipe.name}", job_fingerprint)
    return Job(f"postprocessing/{name}", job_fingerprint, arguments)


def make(store: Store, job: Job[TunePostprocessingArgs]) -> Files:
    """Tune, and store the rule, its scores, and all candidates with their scores in the bundle.

    Raises:
        InputError: no validation subject has a row to tune on.
    """
    given = job.arguments
    subjects = _subject_outputs(store, given)
    try:
        tuned = tune_postprocessing(subjects, task=given.task, recipe=given.recipe)
        if given.weights is not None:
            of_members = read_members(
                store, given.task, given.members, given.labels, frames_per_second=given.frames_per_second
            )
            tuned = hold_out(tuned, of_members, given.weights, recipe=given.recipe)
    except ValueError as error:
        raise InputError(f"{job.name}: {error}") from error
    folds = [{"subjects": list(fold.subjects), **fold.postprocessing.to_dict()} for fold in tuned.folds]
    content = {"postprocessing": tuned.postprocessing.to_dict(), "figures": tuned.figures(), "folds": folds}
    if tuned.calibration:
        content["calibration"] = {branch: asdict(one) for branch, one in tuned.calibration.items()}
        content["coverage"] = [one._asdict() for one in tuned.coverage]
    is_scored = given.recipe.scored_rows == "all"
    rows, faceless = _count_rows(subjects, given.task, drop_partial_units=not is_scored)
    details = PostprocessingDetails(
        head=given.head,
        task=given.task,
        tuning=given.recipe.name,
        figures=TuningFigures(**tuned.figures()),
        subjects=tuple(subject.name for subject in subjects),
        scored_rows=rows if is_scored else rows - faceless,
        scored_without_face=faceless if is_scored else 0,
        excluded_without_face=0 if is_scored else faceless,
        recipe=None if given.recipe.is_named(given.task) else given.recipe.to_dict(),
    )
    return Files({RULE_FILE: _to_json(content), CANDIDATES_FILE: _to_parquet(tuned.candidates)}, details)


def recipe_of(details: PostprocessingDetails) -> PostProcessingRecipe:
    """Return the recipe that a post-processing was tuned with.

    Raises:
        InputError: it has values that this version does not know.
    """
    try:
        if details.recipe is None:
            return get_postprocessing_recipe(details.tuning, task=details.task)
        return PostProcessingRecipe.from_dict(details.recipe)
    except ValueError as error:
        raise InputError(f"post-processing of {details.head}: {error}; run fit again") from error


def _to_json(content: Mapping[str, object]) -> bytes:
    return json.dumps(content, indent=1, sort_keys=True).encode() + b"\n"


def _to_parquet(candidates: Sequence[Candidate]) -> bytes:
    rows = []
    for one in candidates:
        row = one._asdict()
        smoothing, row["outputs"] = row.pop("smoothing"), row.pop("branch")
        rows.append(row | {"method": smoothing.method, "space": smoothing.space})
        rows[-1][f"half_width_{smoothing.unit}"] = smoothing.half_width
    table = pa.Table.from_pylist(rows, CANDIDATES.schema)
    buffer = io.BytesIO()
    pq.write_table(table, buffer, write_page_checksum=True)
    return buffer.getvalue()


def read_candidates(store: Store, tuned: Bundle) -> list[Candidate]:
    """Return what was tried to tune a post-processing, in order; nothing if an earlier version tuned it."""
    if CANDIDATES_FILE not in tuned.files:
        return []
    table = pq.read_table(io.BytesIO(read_file(store, tuned, CANDIDATES_FILE)))
    return [_to_candidate(row) for row in table.to_pylist()]


def _to_candidate(row: dict[str, Any]) -> Candidate:
    # Earlier versions had windows in frames only.
    seconds, space = row.get("half_width_seconds"), row.get("space", "probability")
    if seconds is None:
        smoothing = Smoothing(row["method"], row["half_width_frames"], "frames", space)
    else:
        smoothing = Smoothing(row["method"], seconds, "seconds", space)
    return Candidate(row["outputs"], row["step"], smoothing, row["name"], row["value"], row["score"])


def plan_adopt_postprocessing(tuned: Bundle, *, head: Bundle) -> Job[AdoptPostprocessingArgs]:
    """Plan the job that copies a tuned post-processing to another head of the same task.

    Post-processing cannot be tuned on subjects that the head was fitted on.
    """
    job_fingerprint = fingerprint(
        stage="adopt_postprocessing", version=CODE_VERSION, tuned=tuned.fingerprint, head=head.name
    )
    name = variant_name(f"{head.name}-{PostprocessingDetails.of(tuned).tuning}", job_fingerprint)
    return Job(f"postprocessing/{name}", job_fingerprint, AdoptPostprocessingArgs(tuned, head.name))


def make_adopted(store: Store, job: Job[AdoptPostprocessingArgs]) -> Files:
    """Copy rules, scores and candidates under the name of the other head."""
    tuned = job.arguments.tuned
    details = PostprocessingDetails.of(tuned)
    details = replace(details, head=job.arguments.head, tuned_with=details.head)
    files = {name: read_file(store, tuned, name) for name in tuned.files}
    content = json.loads(files[RULE_FILE]) | {"figures_of": details.tuned_with}
    files[RULE_FILE] = _to_json(content)
    return Files(files, details)


def remove_subjects(store: Store, tuned: Bundle, subjects: Collection[str]) -> None:
    """Remove the names of subjects from a post-processing. Its rules stay as they were tuned.

    The manifest comes last, so that an interrupted call can be repeated.
    """
    files = dict(tuned.files)
    with contextlib.suppress(FileNotFoundError):
        content = json.loads(read_file(store, tuned, RULE_FILE))
        for fold in content.get("folds", ()):
            fold["subjects"] = [name for name in fold["subjects"] if name not in subjects]
        data = _to_json(content)
        store.write_bytes(f"{tuned.folder}/{RULE_FILE}", data)
        files[RULE_FILE] = hashlib.sha256(data).hexdigest()
    details = PostprocessingDetails.of(tuned)
    details = replace(details, subjects=tuple(name for name in details.subjects if name not in subjects))
    write_manifest(store, replace(tuned, files=files, details=details.to_json()))


def _count_rows(subjects: Sequence[SubjectOutputs], task: TaskName, *, drop_partial_units: bool) -> tuple[int, int]:
    """Return the number of labelled rows (see ``is_labelled``), and how many of them show no face."""
    rows = faceless = 0
    for subject in subjects:
        labelled = is_labelled(subject.labels, BRANCHES_OF_TASK[task], drop_partial_units=drop_partial_units)
        rows += int(labelled.sum())
        faceless += int((labelled & rows_without_face(subject)).sum())
    return rows, faceless


def remove_superseded(store: Store, postprocessing: Bundle) -> None:
    """Remove older post-processings that were tuned for the same head in the same way, on other inputs."""
    chosen = PostprocessingDetails.of(postprocessing)
    for other in list_bundles(store, "postprocessing"):
        details = PostprocessingDetails.of(other)
        if other.name != postprocessing.name and (details.head, details.tuning) == (chosen.head, chosen.tuning):
            store.remove_folder(other.folder)


def _subject_outputs(store: Store, given: TunePostprocessingArgs) -> list[SubjectOutputs]:
    branches = BRANCHES_OF_TASK[given.task]
    has_gate = "expr" in branches and bool(given.recipe.gate_levels)
    rates = given.frames_per_second
    return join_labels(
        store.read_unit(labels_key(given.task, "validation"), given.labels),
        (
            (name, read_subject(store, unit, branches, frames_per_second=_rate_of(unit, rates), has_gate=has_gate))
            for name, unit in given.outputs.items()
        ),
    )


def _rate_of(unit: StoredUnit, frames_per_second: Mapping[str, float]) -> float:
    return frames_per_second.get(unit.key.value("subject"), NOMINAL_FRAMES_PER_SECOND)


def join_labels(table: pa.Table, outputs: Iterable[tuple[str, SubjectOutputs]]) -> list[SubjectOutputs]:
    """Return outputs with the labels of their frames. ``outputs``: of each subject, with its name in the labels."""
    names = table["subject"].to_numpy(zero_copy_only=False).astype(str)
    arrays, frame = label_arrays(table), table["frame"].to_numpy()
    subjects = []
    for name, one in outputs:
        # Labels after the last frame of the video have no outputs.
        rows = (names == name) & (frame <= len(one.present))
        labels = {branch: arrays[branch][rows] for branch in one.outputs}
        subjects.append(replace(one, labelled_frame=frame[rows] - 1, labels=labels))
    return subjects


def read_members(
    store: Store,
    task: TaskName,
    outputs: Sequence[MemberOutputs],
    labels: Manifest,
    *,
    frames_per_second: Mapping[str, float],
) -> list[list[SubjectOutputs]]:
    """Return each validation subject's outputs of every member, with the labels.

    ``frames_per_second``: of the video of each subject; others have the nominal one.
    """
    branches = BRANCHES_OF_TASK[task]
    table = store.read_unit(labels_key(task, "validation"), labels)
    of_members: list[list[SubjectOutputs]] = []
    for of in outputs:
        read = []
        for name, unit in of.items():
            known = unit or next(found for other in outputs if (found := other[name]))
            one = read_subject(store, known, branches, frames_per_second=_rate_of(known, frames_per_second))
            if unit is None:
                # The member does not know the subject.
                nothing = {branch: np.full_like(values, np.nan) for branch, values in one.outputs.items()}
                one = replace(one, present=np.zeros_like(one.present), outputs=nothing)
            read.append((name, one))
        of_members.append(join_labels(table, read))
    return [list(one) for one in zip(*of_members, strict=True)]


def chosen_weights(details: HeadDetails) -> ChosenWeights:
    """Return the weights of a blend."""
    branches = BRANCHES_OF_TASK[details.task]
    weights = {branch: [member.weights[branch] for member in details.members] for branch in branches}
    folds = tuple(
        FoldWeights(fold.subjects, {branch: fold.weights[branch] for branch in branches})
        for fold in details.weights_of_folds
    )
    return ChosenWeights(weights, folds)
