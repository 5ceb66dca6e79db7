"""Artifacts of a flow run on the Prefect server: stages, a link to the report, submissions, and persons in videos.

The table and the page of the report are written when a run starts and after every stage, so that a run that is killed
leaves them, too. Many people can read a server: names are shown as they are in the store, credentials are hidden.
"""

import html
import logging
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import astuple, fields
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote
from uuid import UUID

import pyarrow as pa
from prefect._internal.control_listener import get_intent
from prefect.artifacts import MarkdownArtifact, create_link_artifact, create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.context import FlowRunContext
from prefect.settings import PREFECT_API_REQUEST_TIMEOUT, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from data_contracts.details.submissions import SubjectCoverage, SubmissionDetails
from data_contracts.errors import StoreError, counted, printable
from data_contracts.files.credentials import hide_credentials
from data_contracts.schemas.predictions import SUMMARY
from data_contracts.settings import SERVE_URL, answering_soon, read_settings
from data_contracts.store.bundles import Bundle
from data_contracts.vocabulary import SIMULATED_NOTICE, mark_name
from flows.engine.console import explain_error
from flows.engine.run import Run
from flows.engine.run_results import SomeFailedError
from flows.engine.stage_summary import StageSummary
from flows.scoring.picture import draw_persons
from tasks.pages.report_tables import RunRecord
from tasks.pages.write_report import REPORT_TIME, write_report
from tasks.results.prediction_folder import SUMMARY_TABLE

logger = logging.getLogger(__name__)
_COLUMNS = ("stage", "units", "ready", "done", "failed", "quarantined", "rows", "seconds")
_CAUSES_SHOWN = 20
_SUBJECTS_SHOWN = 1_000
_PERSONS_SHOWN = 200
_MARKDOWN_SYNTAX = re.compile(r"([\\`*_\[\]#|~])")
# A server that does not answer must not delay a run by minutes.
_REQUEST_SECONDS = 20
_UNFINISHED = "Not finished yet; if the run has ended since, it was killed here"


class RunArtifacts:
    """The artifacts of the current flow run. Errors are logged, and do not change the result of the run."""

    def __init__(self) -> None:
        context = FlowRunContext.get()
        self._context = context if context and context.flow_run else None
        self._table: UUID | None = None
        self._has_link = False
        self.run: Run | None = None

    def update(self, run: Run) -> None:
        """Write the table and the page of a run that has not ended."""
        self.run = run
        if self._context is None:
            return
        record = self._record(run, _describe_unfinished(run), is_good=None)
        self._attempt(lambda: self._write_page(run, record, is_whole=False))
        self._attempt(lambda: self._write_table(record))

    def finish(self, run: Run, error: BaseException | None) -> None:
        """Write the table, the submissions and the page of a run that has ended, by ``error`` or else by itself."""
        self.run = run
        if self._context is None:
            return
        is_good = error is None and not run.counts.has_problems
        record = self._record(run, describe_end(run, error), is_good=is_good)
        self._attempt(lambda: self._write_table(record))
        if (persons := run.persons) is not None and persons.num_rows:
            self._attempt(lambda: _create_summary(record.flow, persons))
        for bundle in run.submissions:
            self._attempt(lambda bundle=bundle: _create_submission(run, bundle))  # type: ignore[misc]
        if isinstance(error, StoreError):
            # Requests to a server that is gone would take as long as those that ended the run.
            with answering_soon():
                self._attempt(lambda: self._write_page(run, record, is_whole=False))
            return
        # A run that is being stopped has little time.
        is_whole = error is None or isinstance(error, Exception)
        self._attempt(lambda: self._write_page(run, record, is_whole=is_whole))

    def refuse(self, error: BaseException) -> None:
        """Write the cause of a flow run that ended before it could use its store."""
        if self._context is None or self.run is not None:
            return
        record = self._record(None, describe_end(None, error), is_good=False)
        self._attempt(lambda: self._write_table(record))

    def _attempt(self, action: Callable[[], None]) -> None:
        limits = {PREFECT_CLIENT_MAX_RETRIES: 1, PREFECT_API_REQUEST_TIMEOUT: _REQUEST_SECONDS}
        try:
            with temporary_settings(limits):
                action()
        except Exception as problem:
            logger.warning("artifacts of this run are not complete: %s: %s", type(problem).__name__, problem)

    def _record(self, run: Run | None, outcome: str, *, is_good: bool | None) -> RunRecord:
        context = self._context
        assert context and context.flow_run
        started = context.start_time.astimezone(UTC)
        scheduler = {"dask_address": run.scheduler} if run and run.scheduler else {}
        return RunRecord(
            name=context.flow_run.name,
            flow=context.flow.name if context.flow else "",
            started=datetime.fromtimestamp(started.timestamp(), UTC),
            seconds=time.time() - started.timestamp(),
            outcome=outcome,
            is_good=is_good,
            parameters=dict(context.parameters or {}) | scheduler,
            stage_columns=_COLUMNS,
            stages=[_row(summary) for summary in run.summaries] if run else [],
            causes=_causes(run) if run else [],
            is_simulated=run.is_simulated if run else False,
        )

    def _write_table(self, record: RunRecord) -> None:
        markdown, description = _stages_in_markdown(record), _markdown(record.outcome)
        if self._table is None:
            made = MarkdownArtifact(key=_key(record.flow, "stages"), description=description, markdown=markdown)
            self._table = made.create().id  # type: ignore[union-attr]
        else:
            update = ArtifactUpdate(data=markdown, description=description)
            get_client(sync_client=True).update_artifact(self._table, update)

    def _write_page(self, run: Run, record: RunRecord, *, is_whole: bool) -> None:
        assert self._context and self._context.flow_run
        name = f"{record.flow}-{record.started:{REPORT_TIME}}-{str(self._context.flow_run.id)[:8]}"
        path = write_report(run.store, name=name, written=datetime.now(UTC), run=record, with_contents=is_whole)
        if not self._has_link:
            _create_link(run, record, path)
            self._has_link = True


def describe_end(run: Run | None, error: BaseException | None) -> str:
    """Return the outcome of a run in one line: how it ended, and its numbers."""
    if isinstance(error, SomeFailedError):
        # Causes are listed separately.
        return f"Failed: {str(error).split('; first: ')[0]}"
    if error is None:
        return f"Completed: {run.counts.format() if run else ''}"
    until_then = describe_progress(run, error)
    if not isinstance(error, Exception):
        what = "Cancelled" if get_intent() == "cancel" else "Stopped by SIGTERM or the end of its worker"
        return f"{what}{until_then or ' before the first stage'}"
    explained = explain_error(error)
    cause = explained[0] if explained else printable(f"{type(error).__name__}: {error}")
    return f"Failed: {cause}{until_then}"


def describe_progress(run: Run | None, error: BaseException) -> str:
    """Return what a run did before an error that does not say it: ``" (until then: 3 scored)"``, or nothing."""
    if run is None or not run.summaries or isinstance(error, SomeFailedError):
        return ""
    return f" (until then: {run.counts.format()})"


def _describe_unfinished(run: Run) -> str:
    last = f"; last stage: {run.summaries[-1].stage}" if run.summaries else "; no stage yet"
    return f"{_UNFINISHED}{last}; {run.counts.format()}"


def _causes(run: Run) -> list[tuple[str, str, str, str]]:
    return [
        *(("failed", *failure) for failure in run.failures),
        *(("used in part", *problem) for problem in run.problems),
        *(("quarantined", stage, name, note.cause) for stage, name, note in run.quarantined),
        *(("skipped", account.kind, account.place, line) for account in run.inputs for line in account.format_lost()),
    ]


def _row(stage: StageSummary) -> list[object]:
    units = [stage.units, stage.ready, stage.done, len(stage.failures), len(stage.quarantined)]
    return [stage.stage, *units, stage.format_counts(), round(stage.seconds, 1)]


def _stages_in_markdown(record: RunRecord) -> str:
    causes = [": ".join(parts) for parts in record.causes]
    more = [f"... and {len(causes) - _CAUSES_SHOWN} more"] if len(causes) > _CAUSES_SHOWN else []
    rows = [[f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row] for row in record.stages]
    is_text = [name in ("stage", "rows") for name in record.stage_columns]
    table = [_line(record.stage_columns), _line("---" if text else "---:" for text in is_text)]
    table += [_line(map(_markdown, row)) for row in rows]
    return "\n".join(
        [
            f"{_markdown(record.name)}, {record.seconds:.1f} s",
            "",
            *([f"**{SIMULATED_NOTICE}**", ""] if record.is_simulated else []),
            *(table if rows else ["The run ended before its first stage."]),
            "",
            *(f"- {_markdown(line)}" for line in (*causes[:_CAUSES_SHOWN], *more)),
        ]
    )


def _create_link(run: Run, record: RunRecord, path: str) -> None:
    place, served_at = run.store.locate(path), read_settings().serve_url
    link = Path(place).as_uri() if run.store.is_local else place
    how = f"to open the link, set {SERVE_URL} and run affwild2 serve: browsers do not follow links to a disk or to S3"
    create_link_artifact(
        key=_key(record.flow, "report"),
        link=f"{served_at}/{quote(path)}" if served_at else link,
        link_text=f"Report of {_markdown(record.name)}",
        description=f"`{_shown(place)}` ({'served by affwild2 serve' if served_at else how})",
    )


def _create_summary(flow: str, persons: pa.Table) -> None:
    """Write a picture of the expressions of persons in the scored videos, and a table of these persons.

    The picture is part of the text: below a picture with a page of its own, Prefect prints its whole ``data:`` URL.
    """
    shown = persons.slice(0, _PERSONS_SHOWN).to_pylist()
    columns = [name for name in SUMMARY.schema.names if any(row[name] is not None for row in shown)]
    more = persons.num_rows - len(shown)
    picture = draw_persons(persons)
    lines = [
        *([f"![Share of each expression, per person]({picture})", ""] if picture else []),
        _line(name.replace("_", " ") for name in columns),
        _line("---" if name == "video" else "---:" for name in columns),
        *(_line(_markdown(_cell(row[name])) for name in columns) for row in shown),
        *([f"\n{more:,} more rows are in {SUMMARY_TABLE}.csv."] if more else []),
    ]
    videos = counted(len(persons["video"].unique()), "video")
    create_markdown_artifact(key=_key(flow, "summary"), markdown="\n".join(lines), description=f"Persons in {videos}")


def _cell(value: object) -> str:
    return "" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)


def _create_submission(run: Run, bundle: Bundle) -> None:
    details = SubmissionDetails.of(bundle)
    create_markdown_artifact(
        key=_key(
            mark_name("submission", simulated=details.is_simulated),
            details.edition,
            details.task,
            details.smoothing or "",
        ),
        markdown=_submission_in_markdown(run.store.locate(f"{bundle.folder}/{details.zip}"), bundle),
        description=_markdown(f"{bundle.name}: {details.format_checks()}"),
    )


def _submission_in_markdown(place: str, bundle: Bundle) -> str:
    details = SubmissionDetails.of(bundle)
    columns = [one.name for one in fields(SubjectCoverage)]
    faults = [f"- {_markdown(fault)}" for fault in (details.checks.faults if details.checks else ())]
    shown = details.coverage[:_SUBJECTS_SHOWN]
    more = len(details.coverage) - len(shown)
    return "\n".join(
        [
            f"# {_markdown(bundle.name)}",
            "",
            *([f"**{SIMULATED_NOTICE}**", ""] if details.is_simulated else []),
            f"- zip: `{_shown(place)}`",
            f"- sha256: `{bundle.files[details.zip]}`",
            f"- head: `{details.head}`, post-processing: `{details.postprocessing}`",
            "",
            "## Checks",
            "",
            _markdown(details.format_checks()),
            "",
            *faults,
            "",
            "## Coverage",
            "",
            _line(name.replace("_", " ") for name in columns),
            _line("---" if name in ("subject", "frames_known_from") else "---:" for name in columns),
            *(_line(_markdown(str(cell)) for cell in astuple(row)) for row in shown),
            *([f"\n{more:,} more subjects are in coverage.csv."] if more else []),
        ]
    )


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _key(*words: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", "-".join(words).lower()).strip("-")


def _shown(text: str) -> str:
    return printable(hide_credentials(text))


def _markdown(text: str) -> str:
    """Escape text for Markdown: file names may contain links or tags."""
    return _MARKDOWN_SYNTAX.sub(r"\\\1", html.escape(_shown(text), quote=False))
