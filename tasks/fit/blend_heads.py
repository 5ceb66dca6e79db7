"""Stage ``blend_heads``: blend fitted heads of one task into a head, with weights from folds of videos."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from data_contracts.details.heads import BLEND, ZERO_SHOT, BlendMember, HeadDetails, WeightsOfFold
from data_contracts.errors import InputError
from data_contracts.store.bundles import Bundle
from data_contracts.store.fingerprint import fingerprint, variant_name
from data_contracts.store.manifest import Manifest, StoredUnit
from data_contracts.store.store import Store
from data_contracts.vocabulary import BRANCHES_OF_TASK, TaskName, mark_name
from models.decisions.recipes import PostProcessingRecipe
from models.tuning.blend_weights import choose_weights, selection_smoothing
from models.tuning.folds import FOLDS
from tasks.fit.subject_split import SubjectSplit
from tasks.fit.tune_postprocessing import MemberOutputs, read_members
from tasks.units import Files, Job

CODE_VERSION = 1
_HOW = (
    "outputs = sum over members of weight * outputs of the member; where a member has none, they are interpolated "
    "between its nearest frames with outputs; members without any outputs of a subject are left out"
)


@dataclass(frozen=True)
class BlendHeadsArgs:
    """The members of a blend, their outputs of the validation subjects, and the labels.

    ``outputs``: of each member, with the same names. The first member has outputs of all of them.
    """

    members: tuple[Bundle, ...]
    outputs: tuple[MemberOutputs, ...]
    labels: Manifest
    split: SubjectSplit
    recipe: PostProcessingRecipe
    annotations: str


def check_members(task: TaskName, members: Sequence[Bundle]) -> None:
    """Check that heads can be blended.

    Raises:
        InputError: fewer than two different heads; one is of another task, a blend, not fitted, or fitted on the
            validation set too, whose labels cannot show then how good it is.
    """
    if len({member.name for member in members}) < 2 or len({m.name for m in members}) < len(members):
        named = ", ".join(member.name for member in members)
        raise InputError(f"--blend: expected at least two different heads, got {named}; name each with --blend")
    for member in members:
        details = HeadDetails.of(member)
        wrong = None
        if details.task != task:
            wrong = f"a head of {details.task}"
        elif details.members:
            wrong = "a blend: name its members instead"
        elif details.recipe == ZERO_SHOT:
            wrong = "outputs of a backbone that were not fitted"
        elif len(details.trained_on) > 1:
            wrong = f"a head that was fitted on the validation set too: name {details.scores_of or 'the first one'}"
        if wrong:
            raise InputError(f"--blend {member.name}: expected a head that was fitted for {task} on train, got {wrong}")


def plan_blend_heads(
    members: Sequence[Bundle],
    outputs: Sequence[Mapping[str, StoredUnit]],
    *,
    labels: Manifest,
    split: SubjectSplit,
    recipe: PostProcessingRecipe,
    annotations: str,
) -> Job[BlendHeadsArgs]:
    """Plan the job that chooses the weights. ``outputs``: of each member, subject -> unit.

    The blend is for the subjects that the first member has features of. Validation subjects whose video is in the
    training set too are excluded.
    """
    names = {name: subject for name, subject in split.validation().items() if subject in outputs[0]}
    used = tuple({name: of.get(subject) for name, subject in sorted(names.items())} for of in outputs)
    first = HeadDetails.of(members[0])
    job_fingerprint = fingerprint(
        stage="blend_heads",
        version=CODE_VERSION,
        members=[(member.name, member.fingerprint) for member in members],
        outputs=[[(name, unit.manifest.identity if unit else None) for name, unit in of.items()] for of in used],
        labels=labels.identity,
        folds=FOLDS,
        scored_rows=recipe.scored_rows,
        smoothings={branch: selection_smoothing(recipe, branch) for branch in BRANCHES_OF_TASK[first.task]},
    )
    is_simulated = any(HeadDetails.of(member).is_simulated for member in members)
    name = variant_name(mark_name(f"{first.task}-{BLEND}", simulated=is_simulated), job_fingerprint)
    arguments = BlendHeadsArgs(tuple(members), used, labels, split, recipe, annotations)
    return Job(f"heads/{name}", job_fingerprint, arguments)


def make(store: Store, job: Job[BlendHeadsArgs]) -> Files:
    """Choose the weights of the members.

    Raises:
        InputError: no validation subject has a label and outputs.
    """
    given = job.arguments
    details = [HeadDetails.of(member) for member in given.members]
    first = details[0]
    subjects = read_members(store, first.task, given.outputs, given.labels, frames_per_second={})
    try:
        chosen = choose_weights(subjects, task=first.task, recipe=given.recipe)
    except ValueError as error:
        raise InputError(f"{job.name}: {error}") from error
    weights = {branch: list(values) for branch, values in chosen.weights.items()}
    content = {
        "task": first.task,
        "kind": BLEND,
        "members": [member.name for member in given.members],
        "weights": weights,
        "how": _HOW,
    }
    blended = HeadDetails(
        task=first.task,
        recipe=BLEND,
        kind=BLEND,
        backbone=first.backbone,
        source=first.source,
        backbone_name=first.backbone_name,
        weights=first.weights,
        precision=first.precision,
        crop_params=first.crop_params,
        coverage=(),
        figure=first.figure,
        figures={},
        seed_figures=[],
        trained_on=first.trained_on,
        annotations=given.annotations,
        train_subjects=tuple(sorted({name for one in details for name in one.train_subjects})),
        validation_subjects=given.split.subjects["validation"],
        fitted_labels=tuple(sorted({label for one in details for label in one.labels})),
        excluded_subjects=given.split.excluded,
        members=tuple(
            BlendMember(
                head=member.name,
                fingerprint=member.fingerprint,
                backbone=one.backbone,
                source=one.source,
                backbone_name=one.backbone_name,
                weights={branch: values[number] for branch, values in weights.items()},
            )
            for number, (member, one) in enumerate(zip(given.members, details, strict=True))
        ),
        weights_of_folds=tuple(
            WeightsOfFold(subjects=one.subjects, weights={branch: list(of) for branch, of in one.weights.items()})
            for one in chosen.folds
        ),
    )
    return Files({"head.json": json.dumps(content, indent=1).encode() + b"\n"}, blended)


def describe_coverage(blend: Bundle, outputs: Sequence[MemberOutputs]) -> list[list[object]]:
    """Return a row per member: head, features, weights, and validation subjects and frames with outputs of it."""
    details, rows = HeadDetails.of(blend), list[list[object]]()
    for member, of in zip(details.members, outputs, strict=True):
        units = [unit for unit in of.values() if unit]
        weights = ", ".join(f"{branch} {value:.2f}" for branch, value in member.weights.items())
        frames = sum(manifest.rows for _, manifest in units)
        faceless = sum(manifest.counts.get("no_face", 0) for _, manifest in units)
        rows.append([member.head, member.backbone, weights, f"{len(units)} of {len(of)}", frames - faceless, faceless])
    return rows
