"""Stage ``write_submission``: decisions for every row that the organisers expect, zipped, with a coverage table."""

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from data_contracts.bundles import Bundle, read_file, require_bundle
from data_contracts.errors import InputError
from data_contracts.fingerprint import digest_of_file, fingerprint, variant_name
from data_contracts.manifest import Manifest, UnitKey
from data_contracts.store import Store
from data_contracts.submission_files import format_mtl_file, format_subject_file, zip_bytes
from data_contracts.test_lists import read_mtl_list, read_subject_list
from data_contracts.vocabulary import BRANCHES_OF_TASK, BranchName, TaskName
from models.postprocessing import PostProcessing
from tasks.jobs import Files, Job
from tasks.predict_outputs import read_outputs

CODE_VERSION = 1
EDITION = "abaw3"
Decisions = Mapping[BranchName, np.ndarray]


@dataclass(frozen=True)
class SubjectCoverage:
    """Where the rows of one subject come from."""

    subject: str
    rows: int
    with_face: int
    interpolated: int
    beyond_video: int


def plan_write_submission(store: Store, *, head: Bundle, postprocessing: Bundle, source: str, test_list: Path) -> Job:
    """The job that writes one submission.

    Raises:
        InputError: the test list cannot be read, or a subject in it has no outputs of this head.
    """
    task: TaskName = head.details["task"]
    wanted = _subjects_of_list(task, test_list)
    units = {k.value("subject"): (k, m) for k, m in store.manifests("outputs", head=head.name, source=source).items()}
    missing = [subject for subject in wanted if subject not in units]
    if missing:
        raise InputError(
            f"{test_list}: expected outputs of head {head.name} for all {len(wanted)} subjects, found none for "
            f"{len(missing)} ({', '.join(missing[:5])}); extract their videos and predict first"
        )
    outputs = [units[subject] for subject in wanted]
    made_from = fingerprint(
        stage="write_submission",
        version=CODE_VERSION,
        edition=EDITION,
        postprocessing=postprocessing.fingerprint,
        outputs=[(key.value("subject"), manifest.identity) for key, manifest in outputs],
        test_list=digest_of_file(test_list),
    )
    arguments = {"head": head.name, "postprocessing": postprocessing.name, "outputs": outputs, "list": str(test_list)}
    return Job(f"submissions/{variant_name(f'{EDITION}-{task}', made_from)}", made_from, arguments)


def _subjects_of_list(task: TaskName, test_list: Path) -> list[str]:
    if task == "mtl":
        return sorted({subject for subject, _ in read_mtl_list(test_list)})
    return read_subject_list(test_list)


def load_postprocessing(store: Store, bundle: Bundle) -> PostProcessing:
    """The post-processing of a bundle."""
    return PostProcessing.from_dict(json.loads(read_file(store, bundle, "postprocessing.json"))["postprocessing"])


def make(store: Store, job: Job) -> Files:
    """Text files, zip, manifest and coverage table of one submission."""
    head = require_bundle(store, "heads", job.arguments["head"])
    chosen = require_bundle(store, "postprocessing", job.arguments["postprocessing"])
    rule, task = load_postprocessing(store, chosen), head.details["task"]
    decided: dict[str, tuple[Decisions, np.ndarray]] = {}
    for key, manifest in job.arguments["outputs"]:
        decided[key.value("subject")] = _decide(store, key, manifest, rule, task)
    if task == "mtl":
        texts, coverage = _mtl_file(decided, Path(job.arguments["list"]))
    else:
        texts = {f"{s}.txt": format_subject_file(task, decisions[task]) for s, (decisions, _) in decided.items()}
        coverage = [_coverage(subject, present, len(present)) for subject, (_, present) in decided.items()]
    zipped = zip_bytes(texts)
    details = {
        "edition": EDITION,
        "task": task,
        "head": head.name,
        "recipe": head.details["recipe"],
        "postprocessing": chosen.name,
        "fingerprints": {"head": head.fingerprint, "postprocessing": chosen.fingerprint},
        "figures": chosen.details["figures"],
        "coverage": [asdict(c) for c in coverage],
        "zip": f"{EDITION}_{task}.zip",
    }
    files = {f"predictions/{name}": text for name, text in texts.items()}
    return Files(files | {details["zip"]: zipped, "coverage.csv": _coverage_csv(coverage)}, details)


def _decide(
    store: Store, key: UnitKey, manifest: Manifest, rule: PostProcessing, task: TaskName
) -> tuple[Decisions, np.ndarray]:
    present, outputs = read_outputs(store, key, manifest, BRANCHES_OF_TASK[task])
    return rule.apply(outputs, present), present


def _mtl_file(
    decided: Mapping[str, tuple[Decisions, np.ndarray]], test_list: Path
) -> tuple[dict[str, bytes], list[SubjectCoverage]]:
    """Rows in the order of the list; a frame past the end of a video takes the last frame's decision."""
    names, rows = [], []
    listed: dict[str, list[int]] = {}
    for subject, frame in read_mtl_list(test_list):
        decisions, present = decided[subject]
        at = min(frame, len(present)) - 1
        names.append(f"{subject}/{frame:05d}.jpg")
        rows.append((decisions["va"][at], decisions["expr"][at], decisions["au"][at]))
        listed.setdefault(subject, []).append(frame)
    va, expr, au = (np.stack(column) for column in zip(*rows, strict=True))
    coverage = [_coverage_of_frames(subject, decided[subject][1], frames) for subject, frames in listed.items()]
    return {"MTL_predictions.txt": format_mtl_file(names, va=va, expr=expr, au=au)}, coverage


def _coverage(subject: str, present: np.ndarray, rows: int) -> SubjectCoverage:
    return _coverage_of_frames(subject, present, list(range(1, rows + 1)))


def _coverage_of_frames(subject: str, present: np.ndarray, frames: list[int]) -> SubjectCoverage:
    inside = np.array([frame for frame in frames if frame <= len(present)], dtype=int)
    with_face = int(present[inside - 1].sum())
    beyond = len(frames) - len(inside)
    return SubjectCoverage(subject, len(frames), with_face, len(frames) - with_face - beyond, beyond)


def _coverage_csv(coverage: list[SubjectCoverage]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(SubjectCoverage.__dataclass_fields__), lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in coverage)
    return text.getvalue().encode()
