"""Flow ``submit``: write the organisers' submission files from the outputs of heads, stage 10."""

from dataclasses import dataclass

from data_contracts.challenge.editions import rows_by
from data_contracts.challenge.layout import find_test_list
from data_contracts.challenge.names import describe_respelled
from data_contracts.challenge.test_lists import TestList, read_test_list
from data_contracts.details.heads import HeadDetails, PostprocessingDetails
from data_contracts.details.submissions import COVERAGE_COUNTS, SubmissionDetails
from data_contracts.errors import InputError, counted, first_names, printable
from data_contracts.files.inputs import reading_inputs, refresh_listings
from data_contracts.store.bundles import Bundle
from data_contracts.vocabulary import EditionName
from flows.engine.console import print_line, print_table
from flows.engine.run import Run
from flows.engine.run_results import SomeFailedError
from flows.options import takes
from flows.parameters import SubmitParameters, scheduler_of
from models.decisions.smoothing import PUBLISHED_SMOOTHINGS
from tasks.fit import predict_outputs
from tasks.fit.head_selection import (
    describe_superseded,
    fitted_heads,
    select_head_of_submission,
    select_postprocessings,
)
from tasks.fit.stored_heads import load_postprocessing, open_head
from tasks.fit.subject_features import FeaturesVariant, find_features
from tasks.fit.subject_split import describe_seen
from tasks.results import write_submission


def write_submissions(run: Run, requests: list[SubmitParameters]) -> list[Bundle]:
    """Predict missing outputs, and write one submission per request, or the five published ones.

    Raises:
        InputError: a head or post-processing is missing or ambiguous, or subjects of the list have no features.
    """
    planned = [_plan(run, request) for request in requests]
    jobs = []
    for one in planned:
        units = predict_outputs.plan_predict_outputs(run.store, one.variant, head=one.head)
        summary = run.stage(f"predict_outputs {one.request.task}", units, predict_outputs.compute, cheap=True)
        if summary.failures:
            # Planning the submission fails next; these are the causes.
            run.print_causes()
        outputs = predict_outputs.predicted_outputs(run.store, units)
        of_request = [
            write_submission.plan_write_submission(
                run.store,
                head=one.head,
                postprocessing=one.postprocessing,
                outputs=outputs,
                wanted=one.wanted,
                edition=one.edition,
                smoothing=smoothing,
            )
            for smoothing in (PUBLISHED_SMOOTHINGS if one.request.published_five else (None,))
        ]
        _print_notes(one.wanted, one.head, of_request[0].arguments)
        jobs += of_request
    run.jobs("write_submission", jobs, write_submission.make)
    written = [bundle for job in jobs if (bundle := job.find(run.store))]
    run.submissions += written
    return written


@dataclass(frozen=True)
class _Planned:
    """A request, and everything that it needs, opened and checked."""

    request: SubmitParameters
    wanted: TestList
    head: Bundle
    postprocessing: Bundle
    variant: FeaturesVariant
    edition: EditionName


def _plan(run: Run, request: SubmitParameters) -> _Planned:
    wanted, task = _read_list(request), request.task
    if request.published_five and task == "mtl":
        raise InputError(
            "--published-five: expected expr, va or au, got mtl; the paper publishes no smoothing of multi-task "
            "outputs; leave out the option, and run submit mtl --head NAME for each head"
        )
    edition = wanted.choose_edition(task, request.edition)
    allowed = request.allow_other_labels
    head = select_head_of_submission(run.store, task, request.head, allow_other_labels=allowed)
    if not request.head and (line := describe_superseded(head, fitted_heads(run.store))):
        print_line(f"head {head.name}: {line}")
    rule = _postprocessing(run, request, head)
    open_head(run.store, head)
    load_postprocessing(run.store, rule)
    if request.published_five and (tuning := PostprocessingDetails.of(rule).tuning) != "paper":
        raise InputError(
            f"--published-five: expected a post-processing of recipe paper, whose thresholds are found as published, "
            f"got {rule.name} of recipe {tuning}; run fit {task} --recipe paper, and name its head with --head"
        )
    fitted_on = HeadDetails.of(head)
    variant = find_features(run.store, backbone=fitted_on.backbone, source=fitted_on.source)
    run.is_simulated |= fitted_on.is_simulated
    if line := variant.describe_incomplete():
        print_line(line)
    write_submission.match_subjects(run.store, wanted, head=head, known=variant.subjects)
    if not wanted.shows_task:
        print_line(f"note: {wanted.path}: name and content show no task; the list is used for {task} of {edition}")
    return _Planned(request, wanted, head, rule, variant, edition)


def _read_list(request: SubmitParameters) -> TestList:
    """Read the test list, or the only one of the task in a folder."""
    path = request.test_list
    with reading_inputs(path):
        refresh_listings(path)
        if path.is_dir():
            path = find_test_list(path, request.task)
        elif not path.is_file():
            raise InputError(f"{path}: expected the organisers' test list or sample file, found nothing there")
        return read_test_list(path)


def _print_notes(wanted: TestList, head: Bundle, planned: write_submission.WriteSubmissionArgs) -> None:
    """Print which names of the list have another spelling in the store, and which the head was fitted on."""
    print_line(f"test list: {wanted.path}")
    found = zip(wanted.subjects, planned.outputs, strict=True)
    respelled = {wanted.spellings.get(name, name): key.value("subject") for name, (key, _) in found}
    if line := describe_respelled(respelled):
        print_line(f"note: {wanted.path}: {line}")
    for set_name, subjects in planned.seen.items():
        if subjects:
            others = f"the {set_name} set of head {head.name}"
            print_line(describe_seen(subjects, place=str(wanted.path), others=others))


def _postprocessing(run: Run, request: SubmitParameters, head: Bundle) -> Bundle:
    names = [request.postprocessing] if request.postprocessing else None
    rule = select_postprocessings(run.store, [head], names)[head.name]
    if rule is None:
        raise InputError(f"head {head.name}: expected its post-processing, found none; run fit {request.task} again")
    return rule


def print_submissions(run: Run, bundles: list[Bundle]) -> None:
    """Print the coverage per task, and the path of each zip file."""
    written = [(bundle, SubmissionDetails.of(bundle)) for bundle in bundles]
    rows = []
    for _, details in written:
        totals = [sum(getattr(subject, name) for subject in details.coverage) for name in COVERAGE_COUNTS]
        row = [details.edition, details.task, len(details.coverage), *totals]
        # The coverage of the five published submissions is the same.
        rows += [row] if row not in rows else []
    shown = [name.replace("_", " ") for name in COVERAGE_COUNTS]
    simulated = any(details.is_simulated for _, details in written)
    print_table("Submissions", ["edition", "task", "subjects", *shown], rows, simulated=simulated)
    for bundle, details in written:
        uncounted = [c.subject for c in details.coverage if c.frames_known_from != "video"]
        if uncounted and rows_by(details.edition, details.task) == "subject":
            subjects = counted(len(uncounted), "subject")
            print_line(
                f"note: {details.task}: the number of frames of {subjects} is unknown without videos "
                f"({first_names(uncounted)}); their rows end at the last crop"
            )
        print_line(f"submission: {run.store.locate(f'{bundle.folder}/{details.zip}')}")
        print_line(f"verified {details.task}: {details.format_checks()}")
        print_line(f"labels: {details.task} head {details.format_labels()}")


def raise_for_faults(bundles: list[Bundle]) -> None:
    """Raise an exception if the checks of a submission found a fault. The submission is kept for inspection.

    Raises:
        SomeFailedError: the first fault of the first submission with faults.
    """
    for bundle in bundles:
        details = SubmissionDetails.of(bundle)
        if details.checks and details.checks.fault_count:
            raise SomeFailedError(printable(f"{bundle.name}: {details.format_checks()}"))


@takes(SubmitParameters)
def submit(parameters: SubmitParameters) -> str:
    """Write the submission of one task, or the five published ones; return the path of the first zip file."""
    with Run(
        parameters.store, dask_address=scheduler_of(parameters), workers=parameters.workers, may_be_new=False
    ) as run:
        bundles = write_submissions(run, [parameters])
        run.print_summary()
        print_submissions(run, bundles)
        run.print_counts()
        run.raise_for_failures()
        raise_for_faults(bundles)
        return run.store.locate(f"{bundles[0].folder}/{SubmissionDetails.of(bundles[0]).zip}")
