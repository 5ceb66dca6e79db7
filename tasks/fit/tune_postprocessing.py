"""Stage ``tune_postprocessing``: smoothing, thresholds and class bias for one head, tuned on folds of subjects."""

import json
from dataclasses import dataclass, replace

from data_contracts.store.bundles import Bundle, read_file
from data_contracts.store.details import HeadDetails, LabelsDetails, PostprocessingDetails, TuningFigures
from data_contracts.store.fingerprint import fingerprint, variant_name
from data_contracts.store.manifest import Manifest, UnitKey
from data_contracts.store.store import Store
from data_contracts.vocabulary import BRANCHES_OF_TASK, TaskName
from models.decisions.tuning import Setting, SubjectOutputs, added_smoothings, tune_postprocessing
from tasks.fit.import_labels import labels_key
from tasks.fit.predict_outputs import read_outputs
from tasks.fit.subject_features import label_arrays
from tasks.jobs import Files, Job

CODE_VERSION = 2


@dataclass(frozen=True)
class TunePostprocessingArgs:
    """The head, its outputs of the validation subjects, their labels, and how to tune."""

    head: str
    task: TaskName
    outputs: list[tuple[UnitKey, Manifest]]
    labels: Manifest
    tuning: Setting
    folds: int


@dataclass(frozen=True)
class AdoptPostprocessingArgs:
    """A tuned post-processing, and the head that gets it."""

    tuned: Bundle
    head: str


def plan_tune_postprocessing(
    store: Store, *, head: Bundle, source: str, tuning: Setting, folds: int = 5
) -> Job[TunePostprocessingArgs]:
    """The job that tunes on all validation subjects that have outputs of the head."""
    task = HeadDetails.of(head).task
    labels = store.manifests("labels", task=task)[labels_key(task, "validation")]
    subjects = set(LabelsDetails.of(labels).subjects)
    outputs = [
        (key, manifest)
        for key, manifest in store.manifests("outputs", head=head.name, source=source).items()
        if key.value("subject") in subjects
    ]
    added = added_smoothings(tuning)
    made_from = fingerprint(
        stage="tune_postprocessing",
        version=CODE_VERSION,
        outputs=[(key.value("subject"), manifest.identity) for key, manifest in outputs],
        labels=labels.identity,
        tuning=tuning,
        folds=folds,
        **({"smoothings": added} if added else {}),
    )
    arguments = TunePostprocessingArgs(head.name, task, outputs, labels, tuning, folds)
    return Job(f"postprocessing/{variant_name(f'{head.name}-{tuning}', made_from)}", made_from, arguments)


def make(store: Store, job: Job[TunePostprocessingArgs]) -> Files:
    """Tune; the tuned figure, the honest held-out figure and the untuned one go into the bundle."""
    given = job.arguments
    subjects = _subject_outputs(store, given.task, given.outputs, given.labels)
    tuned = tune_postprocessing(subjects, task=given.task, setting=given.tuning, folds=given.folds)
    content = {"postprocessing": tuned.postprocessing.to_dict(), "figures": tuned.figures()}
    data = json.dumps(content, indent=1, sort_keys=True).encode() + b"\n"
    details = PostprocessingDetails(
        head=given.head,
        task=given.task,
        tuning=given.tuning,
        figures=TuningFigures(**tuned.figures()),
        subjects=tuple(subject.name for subject in subjects),
    )
    return Files({"postprocessing.json": data}, details)


def plan_adopt_postprocessing(tuned: Bundle, *, head: Bundle) -> Job[AdoptPostprocessingArgs]:
    """The job that gives a head the post-processing of another one of its kind.

    A head fitted on the validation subjects cannot be tuned on them.
    """
    made_from = fingerprint(stage="adopt_postprocessing", version=CODE_VERSION, tuned=tuned.fingerprint, head=head.name)
    name = variant_name(f"{head.name}-{PostprocessingDetails.of(tuned).tuning}", made_from)
    return Job(f"postprocessing/{name}", made_from, AdoptPostprocessingArgs(tuned, head.name))


def make_adopted(store: Store, job: Job[AdoptPostprocessingArgs]) -> Files:
    """The same rule and figures under the other head's name."""
    tuned = job.arguments.tuned
    details = PostprocessingDetails.of(tuned)
    details = replace(details, head=job.arguments.head, tuned_with=details.head)
    return Files({"postprocessing.json": read_file(store, tuned, "postprocessing.json")}, details)


def _subject_outputs(
    store: Store, task: TaskName, outputs: list[tuple[UnitKey, Manifest]], labels: Manifest
) -> list[SubjectOutputs]:
    table = store.read_unit(labels_key(task, "validation"), labels)
    names = table["subject"].to_numpy(zero_copy_only=False).astype(str)
    arrays, frame = label_arrays(table), table["frame"].to_numpy()
    subjects = []
    for key, manifest in outputs:
        present, values = read_outputs(store, key, manifest, BRANCHES_OF_TASK[task])
        # A label beyond the last frame of the video has nothing to be scored against.
        rows = (names == key.value("subject")) & (frame <= len(present))
        subjects.append(
            SubjectOutputs(
                name=key.value("subject"),
                outputs=values,
                present=present,
                labelled_frame=frame[rows] - 1,
                labels={branch: arrays[branch][rows] for branch in BRANCHES_OF_TASK[task]},
            )
        )
    return subjects
