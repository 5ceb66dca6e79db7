"""Artifacts of a run on the Prefect server: the table of stages, a link to the report, and the submissions.

Many people can read a server: names are shown as they are in the store, credentials are hidden.
"""

import html
import logging
import re
import time
from collections.abc import Iterable
from dataclasses import astuple, fields
from datetime import UTC, datetime
from pathlib import Path

import httpx
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.context import FlowRunContext

from data_contracts.errors import printable
from data_contracts.files.credentials import hide_credentials
from data_contracts.store.bundles import Bundle
from data_contracts.store.details import SubjectCoverage, SubmissionDetails
from flows.engine.run import Run
from flows.engine.stage_summary import StageSummary
from tasks.results.report_tables import RunRecord
from tasks.results.write_report import write_report

logger = logging.getLogger(__name__)
_COLUMNS = ("stage", "units", "ready", "done", "failed", "quarantined", "rows", "seconds")
_CAUSES_SHOWN = 20
_SUBJECTS_SHOWN = 1_000
_MARKDOWN_SYNTAX = re.compile(r"([\\`*_\[\]#|~])")


def create_artifacts(run: Run, error: BaseException | None) -> None:
    """Write the report of a run into its store, and create the artifacts on the server.

    Errors are logged, and do not change the result of the run.
    """
    context = FlowRunContext.get()
    if context is None or context.flow_run is None or not _should_report(error):
        return
    try:
        record = _record_of(run, error, context)
        _create_stages(record)
        for bundle in run.submissions:
            _create_submission(run, bundle)
        name = f"{record.flow}-{record.started:%Y%m%dT%H%M%SZ}-{str(context.flow_run.id)[:8]}"
        path = write_report(run.store, name=name, written=datetime.now(UTC), run=record)
        _create_link(run, record, path)
    except Exception as problem:
        logger.warning("artifacts of this run are not complete: %s: %s", type(problem).__name__, problem)


def _should_report(error: BaseException | None) -> bool:
    """False if the run is being interrupted, or the server does not answer."""
    return error is None or (isinstance(error, Exception) and not isinstance(error, httpx.TransportError))


def _record_of(run: Run, error: BaseException | None, context: FlowRunContext) -> RunRecord:
    started = context.start_time.astimezone(UTC)
    return RunRecord(
        name=context.flow_run.name if context.flow_run else "",
        flow=context.flow.name if context.flow else "",
        started=datetime.fromtimestamp(started.timestamp(), UTC),
        seconds=time.time() - started.timestamp(),
        # Causes are listed separately.
        end=run.counts.format() if error is None else str(error).split("; first: ")[0],
        parameters={**(context.parameters or {}), **({"dask_address": run.scheduler} if run.scheduler else {})},
        stage_columns=_COLUMNS,
        stages=[_row(summary) for summary in run.summaries],
        causes=[
            *(("failed", *failure) for failure in run.failures),
            *(("used in part", *problem) for problem in run.problems),
            *(("quarantined", stage, name, note.cause) for stage, name, note in run.quarantined),
            *(
                ("skipped", account.kind, account.place, line)
                for account in run.inputs
                for line in account.format_lost()
            ),
        ],
    )


def _row(stage: StageSummary) -> list[object]:
    units = [stage.units, stage.ready, stage.done, len(stage.failures), len(stage.quarantined)]
    return [stage.stage, *units, stage.format_counts(), round(stage.seconds, 1)]


def _create_stages(record: RunRecord) -> None:
    causes = [": ".join(parts) for parts in record.causes]
    more = [f"... and {len(causes) - _CAUSES_SHOWN} more"] if len(causes) > _CAUSES_SHOWN else []
    lines = [f"- {_markdown(line)}" for line in (*causes[:_CAUSES_SHOWN], *more)]
    create_table_artifact(
        key=_key(record.flow, "stages"),
        table=[
            {name: _shown(cell) if isinstance(cell, str) else cell for name, cell in zip(_COLUMNS, row, strict=True)}
            for row in record.stages
        ],
        description="\n".join([f"{_markdown(record.end)}, {record.seconds:.1f} s", "", *lines]),
    )


def _create_link(run: Run, record: RunRecord, path: str) -> None:
    place = run.store.locate(path)
    link = Path(place).as_uri() if run.store.is_local else place
    create_link_artifact(
        key=_key(record.flow, "report"),
        link=link,
        link_text=f"Report of {_markdown(record.name)}",
        description=f"`{_shown(place)}` (browsers do not follow links from a server to a disk or to S3)",
    )


def _create_submission(run: Run, bundle: Bundle) -> None:
    details = SubmissionDetails.of(bundle)
    create_markdown_artifact(
        key=_key("submission", details.edition, details.task),
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
