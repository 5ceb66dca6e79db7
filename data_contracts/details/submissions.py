"""Details of submissions: the sources of their rows, and the result of the checks."""

from dataclasses import dataclass, fields

from data_contracts.details.heads import TuningFigures
from data_contracts.details.records import Details, LeftOut, Record
from data_contracts.errors import counted
from data_contracts.vocabulary import BRANCHES_OF_TASK, EditionName, TaskName, is_simulated


@dataclass(frozen=True, kw_only=True)
class SubjectCoverage(Record):
    """Sources of the rows of one subject in a submission; the counts sum to ``rows``.

    Attributes:
        with_face: frames that show the subject's face.
        interpolated: frames between two frames with a face.
        before_first_face, after_last_face: frames that get the first or last prediction.
        without_any_face: all frames, if the face is never found; they get Neutral, 0 and no action unit.
        beyond_video: expected frames after the end of the video or crops; they get the last prediction.
        frames_known_from: ``video``, or ``last crop`` if there is no video; rows may be missing then.
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


# ``rows``, and the counts that sum to it.
COVERAGE_COUNTS = tuple(one.name for one in fields(SubjectCoverage))[1:-1]


@dataclass(frozen=True, kw_only=True)
class SubmissionChecks(Record):
    """Result of ``affwild2 verify``: number of faults, the first ones, and the reference of the comparison."""

    fault_count: int
    faults: tuple[str, ...]
    against: str


@dataclass(frozen=True, kw_only=True)
class SubmissionDetails(Details):
    """``submissions``: the head and post-processing, the sources of the rows, and the result of the checks.

    Attributes:
        recipe: of the head.
        fingerprints: of ``head`` and ``postprocessing``.
        figures: metrics of the post-processing on the validation set.
        figures_of: the head that the metrics belong to, if it is not ``head``.
        zip: file name of the submission.
        smoothing: name of the published smoothing that replaces that of the post-processing; None: its own.
        test_list: path or URL of the list; None if an earlier version wrote the submission, as for ``annotations``.
        annotations: the folder of the labels that the head was fitted on.
        labels: branches whose labels the head was fitted on; empty if an earlier version wrote the submission.
        in_train, in_validation: subjects of the list that are, or whose video is, in a set that the head was fitted on.
        checks: None if rows were removed later, or an earlier version wrote the submission.
    """

    edition: EditionName
    task: TaskName
    head: str
    recipe: str
    postprocessing: str
    fingerprints: dict[str, str]
    figures: TuningFigures
    coverage: tuple[SubjectCoverage, ...]
    zip: str
    checks: LeftOut[SubmissionChecks | None] = None
    test_list: LeftOut[str | None] = None
    annotations: LeftOut[str | None] = None
    in_train: LeftOut[tuple[str, ...]] = ()
    in_validation: LeftOut[tuple[str, ...]] = ()
    figures_of: LeftOut[str | None] = None
    smoothing: LeftOut[str | None] = None
    labels: LeftOut[tuple[str, ...]] = ()

    @property
    def is_simulated(self) -> bool:
        """Return whether the head was fitted on simulated data."""
        return is_simulated(self.zip)

    def format_labels(self) -> str:
        """Return the labels that the head was fitted on in one line, and whether the rules of the task allow them."""
        others = set(self.labels) - set(BRANCHES_OF_TASK[self.task])
        rule = "; challenges of a single task allow only labels of that task" if others else ""
        return f"fitted on labels of {', '.join(self.labels) or 'unknown tasks'}{rule}"

    @property
    def has_no_fault(self) -> bool:
        """Return whether the submission was checked and no fault was found."""
        return self.checks is not None and self.checks.fault_count == 0

    def format_checks(self) -> str:
        """Return the result of the checks in one line."""
        if self.checks is None:
            return "not checked: rows were removed, or an earlier version wrote it"
        count, found = self.checks.fault_count, "no fault"
        if count:
            found = f"{counted(count, 'fault')}, first: {self.checks.faults[0]}"
        return f"{found} ({self.checks.against})"
