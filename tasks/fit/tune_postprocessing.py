"""Stage ``tune_postprocessing``: smoothing, thresholds and class bias for one head, tuned on folds of subjects."""

import json

from data_contracts.store.bundles import Bundle, read_file, require_bundle
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


def plan_tune_postprocessing(store: Store, *, head: Bundle, source: str, tuning: Setting, folds: int = 5) -> Job:
    """The job that tunes on all validation subjects that have outputs of the head."""
    task: TaskName = head.details["task"]
    labels = store.manifests("labels", task=task)[labels_key(task, "validation")]
    subjects = set(labels.details["subjects"])
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
    arguments = {"head": head.name, "outputs": outputs, "labels": labels, "tuning": tuning, "folds": folds}
    return Job(f"postprocessing/{variant_name(f'{head.name}-{tuning}', made_from)}", made_from, arguments)


def make(store: Store, job: Job) -> Files:
    """Tune; the tuned figure, the honest held-out figure and the untuned one go into the bundle."""
    head = require_bundle(store, "heads", job.arguments["head"])
    task: TaskName = head.details["task"]
    subjects = _subject_outputs(store, task, job.arguments["outputs"], job.arguments["labels"])
    tuned = tune_postprocessing(subjects, task=task, setting=job.arguments["tuning"], folds=job.arguments["folds"])
    content = {"postprocessing": tuned.postprocessing.to_dict(), "figures": tuned.figures()}
    data = json.dumps(content, indent=1, sort_keys=True).encode() + b"\n"
    details = {"head": head.name, "task": task, "tuning": job.arguments["tuning"], "figures": tuned.figures()}
    return Files({"postprocessing.json": data}, details | {"subjects": [s.name for s in subjects]})


def plan_adopt_postprocessing(tuned: Bundle, *, head: Bundle) -> Job:
    """The job that gives a head the post-processing of another one of its kind.

    A head fitted on the validation subjects cannot be tuned on them.
    """
    made_from = fingerprint(stage="adopt_postprocessing", version=CODE_VERSION, tuned=tuned.fingerprint, head=head.name)
    name = variant_name(f"{head.name}-{tuned.details['tuning']}", made_from)
    return Job(f"postprocessing/{name}", made_from, {"tuned": tuned, "head": head.name})


def make_adopted(store: Store, job: Job) -> Files:
    """The same rule and figures under the other head's name."""
    tuned: Bundle = job.arguments["tuned"]
    details = tuned.details | {"head": job.arguments["head"], "tuned_with": tuned.details["head"]}
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
