"""Stage ``write_submission``: write decisions for every row that the organisers expect as a zip file."""

import csv
import io
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_contracts.challenge.submissions import (
    format_frames_file,
    format_rows,
    format_subject_file,
    verify_submission,
    zip_bytes,
)
from data_contracts.challenge.test_lists import TestList, read_test_list
from data_contracts.errors import InputError
from data_contracts.files.locations import Location, location
from data_contracts.store.bundles import Bundle, read_file
from data_contracts.store.details import (
    HeadDetails,
    OutputsDetails,
    PostprocessingDetails,
    SubjectCoverage,
    SubmissionChecks,
    SubmissionDetails,
)
from data_contracts.store.fingerprint import digest_of_file, fingerprint, variant_name
from data_contracts.store.manifest import Manifest, UnitKey
from data_contracts.store.store import Store
from data_contracts.vocabulary import BRANCHES_OF_TASK, EditionName, TaskName, video_of_subject
from models.decisions.postprocessing import PostProcessing
from tasks.extract.index_videos import details_of_videos
from tasks.fit.predict_outputs import read_outputs
from tasks.units import Files, Job

CODE_VERSION = 2
_FAULTS_KEPT = 20


@dataclass(frozen=True)
class WriteSubmissionArgs:
    """The inputs of one submission.

    Attributes:
        outputs: units of the head's outputs, one per subject of the test list, in its order.
        test_list: path or URL.
        rows_of_videos: frame count of each indexed video, by stem.
    """

    head: Bundle
    postprocessing: Bundle
    outputs: list[tuple[UnitKey, Manifest]]
    test_list: str
    edition: EditionName
    rows_of_videos: dict[str, int]


def plan_write_submission(
    store: Store,
    *,
    head: Bundle,
    postprocessing: Bundle,
    source: str,
    test_list: Location,
    edition: EditionName | None = None,
) -> Job[WriteSubmissionArgs]:
    """Plan the job that writes one submission. The test list determines the edition if none is given.

    Raises:
        InputError: the test list cannot be read or is not of that edition and task, or a subject in it has no outputs
            of this head.
    """
    task = HeadDetails.of(head).task
    wanted = read_test_list(test_list)
    edition = wanted.choose_edition(task, edition)
    units = {k.value("subject"): (k, m) for k, m in store.manifests("outputs", head=head.name, source=source).items()}
    missing = [subject for subject in wanted.subjects if subject not in units]
    if missing:
        raise InputError(
            f"{test_list}: expected outputs of head {head.name} for all {len(wanted.subjects)} subjects, found none "
            f"for {len(missing)} ({', '.join(missing[:5])}); extract their videos and predict first"
        )
    outputs = [units[subject] for subject in wanted.subjects]
    job_fingerprint = fingerprint(
        stage="write_submission",
        version=CODE_VERSION,
        edition=edition,
        postprocessing=postprocessing.fingerprint,
        outputs=[(key.value("subject"), manifest.identity) for key, manifest in outputs],
        test_list=digest_of_file(test_list),
    )
    rows_of_videos = {stem: details.frame_count for stem, details in details_of_videos(store).items()}
    arguments = WriteSubmissionArgs(head, postprocessing, outputs, str(test_list), edition, rows_of_videos)
    return Job(f"submissions/{variant_name(f'{edition}-{task}', job_fingerprint)}", job_fingerprint, arguments)


def load_postprocessing(store: Store, bundle: Bundle) -> PostProcessing:
    """Read the post-processing of a bundle."""
    try:
        return PostProcessing.from_dict(json.loads(read_file(store, bundle, "postprocessing.json"))["postprocessing"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{bundle.folder}: expected a post-processing, got: {error}; run fit again") from error


def make(store: Store, job: Job[WriteSubmissionArgs]) -> Files:
    """Return text files, zip file and coverage table of one submission."""
    given = job.arguments
    head, chosen = HeadDetails.of(given.head), PostprocessingDetails.of(given.postprocessing)
    rule, task, edition = load_postprocessing(store, given.postprocessing), head.task, given.edition
    wanted = read_test_list(location(given.test_list))
    texts: dict[str, bytes] = {}
    rows = np.empty(len(wanted.images), object)
    coverage = []
    for number, (key, manifest) in enumerate(given.outputs):
        present, outputs = read_outputs(store, key, manifest, BRANCHES_OF_TASK[task])
        decisions = rule.apply(outputs, present)
        frame: np.ndarray = np.arange(1, len(present) + 1)
        if wanted.rows_by == "subject":
            texts[f"{wanted.subjects[number]}.txt"] = format_subject_file(task, decisions)
        else:
            expected_rows = np.flatnonzero(wanted.subject_of_row == number)
            frame = wanted.frame_of_row[expected_rows]
            values = np.array(format_rows(task, decisions), object)
            rows[expected_rows] = values[np.minimum(frame, len(present)) - 1]
        known_from = OutputsDetails.of(manifest).frames_known_from
        coverage.append(_coverage(wanted.subjects[number], present, frame, known_from))
    if wanted.rows_by == "frame":
        texts[f"{task.upper()}_predictions.txt"] = format_frames_file(task, wanted.images, rows.tolist())
    packed, zip_name = zip_bytes(texts), f"{edition}_{task}.zip"
    details = SubmissionDetails(
        edition=edition,
        task=task,
        head=given.head.name,
        recipe=head.recipe,
        postprocessing=given.postprocessing.name,
        fingerprints={"head": given.head.fingerprint, "postprocessing": given.postprocessing.fingerprint},
        figures=chosen.figures,
        figures_of=chosen.tuned_with,
        coverage=tuple(coverage),
        zip=zip_name,
        checks=_checks(packed, zip_name, task, wanted, rows=given.rows_of_videos),
    )
    files = {f"predictions/{name}": text for name, text in texts.items()}
    return Files(files | {zip_name: packed, "coverage.csv": _coverage_csv(coverage)}, details)


def _checks(
    packed: bytes, zip_name: str, task: TaskName, wanted: TestList, *, rows: Mapping[str, int]
) -> SubmissionChecks:
    """Verify the zip file as ``affwild2 verify`` does."""
    with tempfile.TemporaryDirectory(prefix="affwild2-checks-") as folder:
        path = Path(folder, zip_name)
        path.write_bytes(packed)
        faults = verify_submission(path, task=task, test_list=wanted.path, expected_rows=rows)
    against = f"test list of {len(wanted.images):,} frames"
    if wanted.rows_by == "subject":
        counted = sum(video_of_subject(subject) in rows for subject in wanted.subjects)
        against = f"test list of {len(wanted.subjects):,} subjects, videos of {counted:,} counted"
    kept = tuple(str(fault) for fault in faults[:_FAULTS_KEPT])
    return SubmissionChecks(fault_count=len(faults), faults=kept, against=against)


def _coverage(subject: str, present: np.ndarray, frame: np.ndarray, known_from: str) -> SubjectCoverage:
    """Count the expected frames (1-based, in any order, possibly repeated)."""
    inside = frame[frame <= len(present)] - 1
    with_face = np.flatnonzero(present)
    faceless = inside[~present[inside]]
    before, after = (
        (int((faceless < with_face[0]).sum()), int((faceless > with_face[-1]).sum())) if with_face.size else (0, 0)
    )
    never = 0 if with_face.size else len(faceless)
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
    writer.writerows(row.to_json() for row in coverage)
    return text.getvalue().encode()
