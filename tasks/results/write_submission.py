"""Stage ``write_submission``: write decisions for every row that the organisers expect as a zip file."""

import csv
import io
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_contracts.challenge.names import match_names, similar_names
from data_contracts.challenge.submissions import (
    format_frames_file,
    format_rows,
    format_subject_file,
    rows_expected_of,
    verify_submission,
    zip_bytes,
)
from data_contracts.challenge.test_lists import TestList, read_test_list
from data_contracts.details.datasets import OutputsDetails
from data_contracts.details.heads import HeadDetails, PostprocessingDetails, TuningFigures
from data_contracts.details.submissions import SubjectCoverage, SubmissionChecks, SubmissionDetails
from data_contracts.errors import InputError, counted
from data_contracts.files.locations import location
from data_contracts.store.bundles import Bundle
from data_contracts.store.fingerprint import digest_of_file, fingerprint, variant_name
from data_contracts.store.manifest import StoredUnit
from data_contracts.store.store import Store
from data_contracts.vocabulary import (
    BRANCHES_OF_TASK,
    SUBJECT_SIDES,
    EditionName,
    SetName,
    TaskName,
    mark_name,
    video_of_subject,
)
from models.decisions.smoothing import PUBLISHED_SMOOTHINGS
from tasks.extract.index_videos import details_of_videos
from tasks.fit.predict_outputs import read_subject
from tasks.fit.stored_heads import load_postprocessing
from tasks.fit.subject_features import frame_rates
from tasks.fit.subject_split import seen_subjects, subjects_of_head
from tasks.fit.tune_postprocessing import recipe_of
from tasks.units import Files, Job

CODE_VERSION = 2
_FAULTS_KEPT = 20


@dataclass(frozen=True)
class WriteSubmissionArgs:
    """The inputs of one submission.

    Attributes:
        outputs: units of the head's outputs, one per subject of the test list, in its order.
        test_list: path or URL.
        seen: set -> subjects of the list that are, or whose video is, in this set of the head.
        rows_of_videos: frame count of each indexed video, by stem.
        smoothing: name in ``PUBLISHED_SMOOTHINGS``, instead of the smoothing of the post-processing.
        frames_per_second: of the video of each subject of the outputs.
    """

    head: Bundle
    postprocessing: Bundle
    outputs: list[StoredUnit]
    test_list: str
    edition: EditionName
    seen: dict[SetName, list[str]]
    rows_of_videos: dict[str, int]
    frames_per_second: dict[str, float]
    smoothing: str | None = None


def plan_write_submission(
    store: Store,
    *,
    head: Bundle,
    postprocessing: Bundle,
    outputs: Mapping[str, StoredUnit],
    wanted: TestList,
    edition: EditionName,
    smoothing: str | None = None,
) -> Job[WriteSubmissionArgs]:
    """Plan the job that writes one submission.

    Args:
        outputs: subject -> unit of the head's outputs.
        smoothing: name in ``PUBLISHED_SMOOTHINGS``, instead of the smoothing of the post-processing.

    Raises:
        InputError: a subject of the list has no outputs.
    """
    task, indexed = HeadDetails.of(head).task, details_of_videos(store)
    matches = match_subjects(store, wanted, head=head, known=outputs)
    units = [outputs[matches[subject]] for subject in wanted.subjects]
    sets = subjects_of_head(store, head)
    seen = {name: seen_subjects(matches.values(), subjects) for name, subjects in sets.items()}
    rates = frame_rates(store, [key.value("subject") for key, _ in units])
    needs_rates = recipe_of(PostprocessingDetails.of(postprocessing)).needs_frame_rates
    job_fingerprint = fingerprint(
        stage="write_submission",
        version=CODE_VERSION,
        edition=edition,
        postprocessing=postprocessing.fingerprint,
        outputs=[(key.value("subject"), manifest.identity) for key, manifest in units],
        test_list=digest_of_file(wanted.path),
        **({"smoothing": smoothing} if smoothing else {}),
        **({"frames_per_second": rates} if needs_rates else {}),
    )
    rows_of_videos = {stem: details.frame_count for stem, details in indexed.items()}
    arguments = WriteSubmissionArgs(
        head, postprocessing, units, str(wanted.path), edition, seen, rows_of_videos, rates, smoothing
    )
    words = "-".join([edition, task, *_words(smoothing)])
    name = variant_name(mark_name(words, simulated=HeadDetails.of(head).is_simulated), job_fingerprint)
    return Job(f"submissions/{name}", job_fingerprint, arguments)


def _words(smoothing: str | None) -> list[str]:
    """Return what names of folders and zip files say about a published smoothing: ``median15``."""
    return [smoothing.replace(" ", "")] if smoothing else []


def match_subjects(store: Store, wanted: TestList, *, head: Bundle, known: Collection[str]) -> dict[str, str]:
    """Return the known subject of each subject of a list, also if the list spells it differently.

    Args:
        known: subjects with features for the head, or with outputs of it.

    Raises:
        InputError: a subject of the list is not known; the message says how to get it.
    """
    spelled = {wanted.spellings.get(subject, subject): subject for subject in wanted.subjects}
    found = {spelled[name]: subject for name, subject in match_names(spelled, known).items()}
    if missing := [subject for subject in wanted.subjects if subject not in found]:
        fitted_on = HeadDetails.of(head)
        raise InputError(
            f"{wanted.path}: expected features {fitted_on.backbone} {fitted_on.source}, on which head {head.name} was "
            f"fitted, of all {len(wanted.subjects)} subjects, found none for {len(missing)} "
            f"({', '.join(missing[:5])}); {_how_to_get(missing, known, details_of_videos(store))}"
        )
    return found


def _how_to_get(missing: Sequence[str], known: Collection[str], videos: Collection[str]) -> str:
    """Return what to do about subjects without outputs, for the first one of each kind."""
    lines: dict[str, str] = {}
    for subject in missing:
        video = video_of_subject(subject)
        sides = [side for side in (f"{subject}{end}" for end in SUBJECT_SIDES) if match_names([side], known)]
        if similar := similar_names(subject, known):
            lines.setdefault("similar", f"{subject} could be {' or '.join(similar)}: spell it like one of them")
        elif video != subject and match_names([video], known):
            line = (
                f"{video} was extracted with one subject: run extract on a folder that has the list or annotations too"
            )
            lines.setdefault("one subject", line)
        elif sides:
            lines.setdefault("sides", f"{subject} was extracted with two subjects: name {' and '.join(sides)} instead")
        elif match_names([video], videos):
            lines.setdefault("no features", f"the video of {subject} has no features for this head: run extract again")
        else:
            lines.setdefault("no video", f"extract the video of {subject} first")
    return "; ".join(lines.values())


def make(store: Store, job: Job[WriteSubmissionArgs]) -> Files:
    """Return text files, zip file and coverage table of one submission."""
    given = job.arguments
    head, chosen = HeadDetails.of(given.head), PostprocessingDetails.of(given.postprocessing)
    rule, task, edition = load_postprocessing(store, given.postprocessing), head.task, given.edition
    figures = chosen.figures
    if given.smoothing and (smoothed := rule.with_smoothing(PUBLISHED_SMOOTHINGS[given.smoothing])) != rule:
        # The stored scores are those of the smoothing of the post-processing.
        rule, figures = smoothed, TuningFigures()
    wanted = read_test_list(location(given.test_list))
    texts: dict[str, bytes] = {}
    rows = np.empty(len(wanted.images), object)
    coverage = []
    for number, unit in enumerate(given.outputs):
        rate = given.frames_per_second[unit.key.value("subject")]
        subject = read_subject(store, unit, BRANCHES_OF_TASK[task], frames_per_second=rate, has_gate=rule.has_gate)
        decisions, present = subject.decide(rule), subject.present
        frame: np.ndarray = np.arange(1, len(present) + 1)
        if wanted.rows_by == "subject":
            texts[f"{wanted.subjects[number]}.txt"] = format_subject_file(task, decisions)
        else:
            expected_rows = np.flatnonzero(wanted.subject_of_row == number)
            frame = wanted.frame_of_row[expected_rows]
            values = np.array(format_rows(task, decisions), object)
            rows[expected_rows] = values[np.minimum(frame, len(present)) - 1]
        known_from = OutputsDetails.of(unit.manifest).frames_known_from
        coverage.append(_coverage(wanted.subjects[number], present, frame, known_from))
    if wanted.rows_by == "frame":
        file_name = mark_name(f"{task.upper()}_predictions.txt", simulated=head.is_simulated)
        texts[file_name] = format_frames_file(task, wanted.images, rows.tolist())
    words = "_".join([edition, task, *_words(given.smoothing)])
    zip_name = mark_name(f"{words}.zip", simulated=head.is_simulated)
    packed = zip_bytes(texts, simulated=head.is_simulated)
    details = SubmissionDetails(
        edition=edition,
        task=task,
        head=given.head.name,
        recipe=head.recipe,
        postprocessing=given.postprocessing.name,
        fingerprints={"head": given.head.fingerprint, "postprocessing": given.postprocessing.fingerprint},
        figures=figures,
        figures_of=chosen.tuned_with,
        coverage=tuple(coverage),
        zip=zip_name,
        checks=_checks(packed, zip_name, task, wanted, rows=given.rows_of_videos),
        test_list=given.test_list,
        annotations=head.annotations,
        in_train=tuple(given.seen["train"]),
        in_validation=tuple(given.seen["validation"]),
        smoothing=given.smoothing,
        labels=head.labels,
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
    against = f"test list of {counted(len(wanted.images), 'frame')}"
    if wanted.rows_by == "subject":
        known = sum(rows_expected_of(subject, rows) is not None for subject in wanted.subjects)
        against = f"test list of {counted(len(wanted.subjects), 'subject')}, videos of {known:,} counted"
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
