"""Stage ``write_submission``: decisions for every row that the organisers expect, zipped, with a coverage table."""

import csv
import io
import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_contracts.challenge.editions import check_edition, edition_of_list
from data_contracts.challenge.submission_files import format_frames_file, format_rows, format_subject_file, zip_bytes
from data_contracts.challenge.test_lists import TestList, read_test_list
from data_contracts.challenge.verification import verify_submission
from data_contracts.errors import InputError
from data_contracts.files.locations import Location, location
from data_contracts.store.bundles import Bundle, read_file, require_bundle
from data_contracts.store.fingerprint import digest_of_file, fingerprint, variant_name
from data_contracts.store.store import Store
from data_contracts.vocabulary import BRANCHES_OF_TASK, BranchName, EditionName, TaskName, video_of_subject
from models.decisions.postprocessing import PostProcessing
from tasks.extract.index_videos import ready_videos
from tasks.fit.predict_outputs import read_outputs
from tasks.jobs import Files, Job

CODE_VERSION = 2
# Rows of a subject, and the parts that they are the sum of.
COVERAGE_COUNTS = (
    "rows",
    "with_face",
    "interpolated",
    "before_first_face",
    "after_last_face",
    "without_any_face",
    "beyond_video",
)
_FAULTS_KEPT = 20
Decisions = Mapping[BranchName, np.ndarray]


@dataclass(frozen=True)
class SubjectCoverage:
    """Where the rows of one subject come from; the parts sum to ``rows``.

    Attributes:
        with_face: frames that show the subject's face.
        interpolated: between two frames with a face.
        before_first_face, after_last_face: these take the first or last prediction.
        without_any_face: the subject is never seen: Neutral, 0, no unit.
        beyond_video: demanded, but the video (or the crops) has no such frame; they take the last prediction.
        frames_known_from: ``video``, or ``last crop`` where there is no video to count: rows may be missing then.
    """

    subject: str
    rows: int
    with_face: int
    interpolated: int
    before_first_face: int
    after_last_face: int
    without_any_face: int
    beyond_video: int
    frames_known_from: str


def plan_write_submission(
    store: Store,
    *,
    head: Bundle,
    postprocessing: Bundle,
    source: str,
    test_list: Location,
    edition: EditionName | None = None,
) -> Job:
    """The job that writes one submission; the list tells the edition if none is named.

    Raises:
        InputError: the test list cannot be read or is not of that edition and task, or a subject in it has no outputs
            of this head.
    """
    task: TaskName = head.details["task"]
    wanted = read_test_list(test_list)
    edition = edition or edition_of_list(test_list, task, wanted.rows_by)
    check_edition(edition, task, wanted.rows_by, test_list)
    units = {k.value("subject"): (k, m) for k, m in store.manifests("outputs", head=head.name, source=source).items()}
    missing = [subject for subject in wanted.subjects if subject not in units]
    if missing:
        raise InputError(
            f"{test_list}: expected outputs of head {head.name} for all {len(wanted.subjects)} subjects, found none "
            f"for {len(missing)} ({', '.join(missing[:5])}); extract their videos and predict first"
        )
    outputs = [units[subject] for subject in wanted.subjects]
    made_from = fingerprint(
        stage="write_submission",
        version=CODE_VERSION,
        edition=edition,
        postprocessing=postprocessing.fingerprint,
        outputs=[(key.value("subject"), manifest.identity) for key, manifest in outputs],
        test_list=digest_of_file(test_list),
    )
    arguments = {
        "head": head.name,
        "postprocessing": postprocessing.name,
        "outputs": outputs,
        "list": str(test_list),
        "edition": edition,
    }
    return Job(f"submissions/{variant_name(f'{edition}-{task}', made_from)}", made_from, arguments)


def load_postprocessing(store: Store, bundle: Bundle) -> PostProcessing:
    """The post-processing of a bundle."""
    try:
        return PostProcessing.from_dict(json.loads(read_file(store, bundle, "postprocessing.json"))["postprocessing"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{bundle.folder}: expected a post-processing, got: {error}; run fit again") from error


def make(store: Store, job: Job) -> Files:
    """Text files, zip, manifest and coverage table of one submission."""
    head = require_bundle(store, "heads", job.arguments["head"])
    chosen = require_bundle(store, "postprocessing", job.arguments["postprocessing"])
    rule, task, edition = load_postprocessing(store, chosen), head.details["task"], job.arguments["edition"]
    wanted = read_test_list(location(job.arguments["list"]))
    texts: dict[str, bytes] = {}
    rows = np.empty(len(wanted.images), object)
    coverage = []
    for number, (key, manifest) in enumerate(job.arguments["outputs"]):
        present, outputs = read_outputs(store, key, manifest, BRANCHES_OF_TASK[task])
        decisions = rule.apply(outputs, present)
        frame: np.ndarray = np.arange(1, len(present) + 1)
        if wanted.rows_by == "subject":
            texts[f"{wanted.subjects[number]}.txt"] = format_subject_file(task, decisions)
        else:
            here = np.flatnonzero(wanted.subject_of_row == number)
            frame = wanted.frame_of_row[here]
            values = np.array(format_rows(task, decisions), object)
            rows[here] = values[np.minimum(frame, len(present)) - 1]
        known_from = manifest.details.get("frames_known_from", "video")
        coverage.append(_coverage(wanted.subjects[number], present, frame, known_from))
    if wanted.rows_by == "frame":
        texts[f"{task.upper()}_predictions.txt"] = format_frames_file(task, wanted.images, rows.tolist())
    details = {
        "edition": edition,
        "task": task,
        "head": head.name,
        "recipe": head.details["recipe"],
        "postprocessing": chosen.name,
        "fingerprints": {"head": head.fingerprint, "postprocessing": chosen.fingerprint},
        "figures": chosen.details["figures"],
        "coverage": [asdict(c) for c in coverage],
        "zip": f"{edition}_{task}.zip",
    }
    packed = zip_bytes(texts)
    details["checks"] = _checks(store, packed, details, wanted)
    files = {f"predictions/{name}": text for name, text in texts.items()}
    return Files(files | {details["zip"]: packed, "coverage.csv": _coverage_csv(coverage)}, details)


def _checks(store: Store, packed: bytes, details: dict[str, Any], wanted: TestList) -> dict[str, Any]:
    """What ``affwild2 verify`` finds in the zip, for its manifest."""
    rows = {stem: manifest.details["frame_count"] for stem, manifest in ready_videos(store).items()}
    with tempfile.TemporaryDirectory(prefix="affwild2-checks-") as folder:
        path = Path(folder, details["zip"])
        path.write_bytes(packed)
        faults = verify_submission(path, task=details["task"], test_list=wanted.path, expected_rows=rows)
    against = f"test list of {len(wanted.images):,} frames"
    if wanted.rows_by == "subject":
        counted = sum(video_of_subject(subject) in rows for subject in wanted.subjects)
        against = f"test list of {len(wanted.subjects):,} subjects, videos of {counted:,} counted"
    return {"fault_count": len(faults), "faults": [str(f) for f in faults[:_FAULTS_KEPT]], "against": against}


def told_checks(bundle: Bundle) -> str:
    """What came of the checks of a submission, in a line."""
    checks = bundle.details.get("checks")
    if checks is None:
        return "not checked: rows were removed, or an earlier version wrote it"
    count = checks["fault_count"]
    found = f"{count} fault{'s' if count > 1 else ''}, first: {checks['faults'][0]}" if count else "no fault"
    return f"{found} ({checks['against']})"


def has_no_fault(bundle: Bundle) -> bool:
    """Whether a submission was checked, and nothing was found."""
    checks = bundle.details.get("checks")
    return checks is not None and checks["fault_count"] == 0


def _coverage(subject: str, present: np.ndarray, frame: np.ndarray, known_from: str) -> SubjectCoverage:
    """Counts over the demanded frames (1-based, any order, repeats count)."""
    inside = frame[frame <= len(present)] - 1
    seen = np.flatnonzero(present)
    faceless = inside[~present[inside]]
    before, after = (int((faceless < seen[0]).sum()), int((faceless > seen[-1]).sum())) if seen.size else (0, 0)
    never = 0 if seen.size else len(faceless)
    return SubjectCoverage(
        subject=subject,
        rows=len(frame),
        with_face=len(inside) - len(faceless),
        interpolated=len(faceless) - before - after - never,
        before_first_face=before,
        after_last_face=after,
        without_any_face=never,
        beyond_video=len(frame) - len(inside),
        frames_known_from=known_from,
    )


def _coverage_csv(coverage: list[SubjectCoverage]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(SubjectCoverage.__dataclass_fields__), lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in coverage)
    return text.getvalue().encode()
