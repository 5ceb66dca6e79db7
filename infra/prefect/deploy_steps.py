"""Steps that ``prefect deploy`` runs (see prefect.yaml): they check the environment and keep an operator's changes.

``prefect deploy`` would send every field of a deployment and so undo what an operator changed on the server: other
parameters, schedules, tags, the concurrency limit, the work queue, and whether it is paused. After
``prepare_deployments``, it sends only what the program defines, and the parameters and the schedule whose variables are
set. Each value that it changes is reported in a line.
"""

import asyncio
import functools
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn
from uuid import UUID

import yaml
from prefect.client.orchestration import PrefectClient, SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate, DeploymentUpdate
from prefect.client.schemas.objects import DeploymentSchedule
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule
from prefect.exceptions import ObjectNotFound
from prefect.server.schemas.schedules import CronSchedule as ServerCronSchedule
from prefect.utilities.schema_tools.validation import validate
from prefect.utilities.templating import find_placeholders

from infra.prefect.automations import create_automations

RESCORE_CRON = "AFFWILD2_RESCORE_CRON"
_DEFAULT_CRON, _NO_SCHEDULE, _TIMEZONE_PREFIX = "0 3 * * *", "none", "CRON_TZ="
# The name of the schedule of prefect.yaml on the server.
_SLUG = "nightly"
# What the program defines. The server keeps all other fields of an existing deployment.
_SENT = {"entrypoint", "job_variables", "parameter_openapi_schema", "parameters", "path", "pull_steps", "version"}


def prepare_deployments() -> dict[str, str | bool]:
    """Check the variables of all deployments, and make ``prefect deploy`` keep the changes of an operator.

    Returns what prefect.yaml uses: ``folder`` of the project; ``cron``, ``timezone`` and ``is_active`` of the
    schedule. Without a variable that a new deployment needs, the command ends with one line and code 2.
    """
    return _prepare_once()


@functools.cache
def _prepare_once() -> dict[str, str | bool]:
    cron, timezone = _read_cron()
    with get_client(sync_client=True) as client:
        missing = sorted(set(_missing_variables(client)))
        if missing:
            _fail(f"expected {', '.join(missing)} in the environment, because a deployment has no value for them yet")
        for line in create_automations(client):
            _report(line)
    for variables in _read_defaults().values():
        for variable in variables.values():
            # Prefect warns about variables that are not set; a line of _merge_parameters reports them.
            os.environ.setdefault(variable, "")
    _keep_changes()
    is_active = cron != _NO_SCHEDULE
    return {
        "folder": str(Path.cwd()),
        "cron": cron if is_active and cron else _DEFAULT_CRON,
        "timezone": timezone,
        "is_active": is_active,
    }


def _read_cron() -> tuple[str, str]:
    """Return the cron expression of the environment ('' if there is none) and its time zone."""
    text = os.environ.get(RESCORE_CRON, "").strip()
    cron, timezone = text, "UTC"
    if text.startswith(_TIMEZONE_PREFIX):
        timezone, _, cron = text.removeprefix(_TIMEZONE_PREFIX).partition(" ")
    if text not in ("", _NO_SCHEDULE) and not (timezone and _has_dates(cron.strip(), timezone)):
        _fail(
            f"{RESCORE_CRON}: expected a cron expression such as '{_DEFAULT_CRON}', with a time zone "
            f"'{_TIMEZONE_PREFIX}Europe/Berlin {_DEFAULT_CRON}', or '{_NO_SCHEDULE}', got {text!r}"
        )
    return cron.strip(), timezone


def _has_dates(cron: str, timezone: str) -> bool:
    """Return whether a schedule is valid and has a next date: there is no 30th of February."""
    try:
        return bool(asyncio.run(ServerCronSchedule(cron=cron, timezone=timezone).get_dates(n=1)))
    except ValueError:
        return False


def _missing_variables(client: SyncPrefectClient) -> Iterator[str]:
    for name, variables in _read_defaults().items():
        try:
            stored = client.read_deployment_by_name(name).parameters
        except ObjectNotFound:
            stored = {}
        for key, variable in variables.items():
            if not os.environ.get(variable) and _is_empty(stored.get(key)):
                yield variable


@functools.cache
def _read_defaults() -> dict[str, dict[str, str]]:
    """Return deployment -> parameter -> the variable that prefect.yaml takes its default from."""
    definitions = yaml.safe_load(Path("prefect.yaml").read_text())["deployments"]
    return {
        _full_name(one["entrypoint"], one["name"]): {
            key: placeholder.name.lstrip("$")
            for key, value in one.get("parameters", {}).items()
            for placeholder in find_placeholders(value)
        }
        for one in definitions
    }


def _full_name(entrypoint: str, name: str) -> str:
    return f"{entrypoint.rpartition(':')[2]}/{name}"


def _is_empty(value: Any) -> bool:
    return not value or value == [""]


def _keep_changes() -> None:
    """Make clients of this process leave out what the server should keep when they update a deployment."""
    create, update = PrefectClient.create_deployment, PrefectClient.update_deployment

    @functools.wraps(create)
    async def create_with_valid_parameters(self: PrefectClient, **sent: Any) -> UUID:
        name = _full_name(sent["entrypoint"], sent["name"])
        _refuse_unknown(sent)
        _check_parameters(name, sent["parameters"], sent["parameter_openapi_schema"])
        return await create(self, **sent)

    @functools.wraps(update)
    async def update_what_the_program_defines(
        self: PrefectClient, deployment_id: UUID, deployment: DeploymentUpdate
    ) -> None:
        stored = await self.read_deployment(deployment_id)
        sent = deployment.model_dump(exclude_unset=True, include=_SENT)
        name = _full_name(sent["entrypoint"], stored.name)
        sent["parameters"] = _merge_parameters(name, stored.parameters, sent)
        sent["tags"] = sorted({*stored.tags, *(deployment.tags or ())})
        sent["job_variables"] = _merge(stored.job_variables or {}, sent["job_variables"] or {})
        _refuse_unknown(sent)
        _check_parameters(name, sent["parameters"], sent["parameter_openapi_schema"])
        await _update_schedule(self, name, stored, deployment)
        if stored.paused:
            _report(f"{name} is paused and stays paused")
        await update(self, deployment_id, DeploymentUpdate(**sent))

    for method in (create_with_valid_parameters, update_what_the_program_defines):
        setattr(PrefectClient, method.__name__, method)


def _refuse_unknown(sent: dict[str, Any]) -> None:
    """Let the server refuse a run with an unknown parameter, whose process would end with a traceback."""
    sent["parameter_openapi_schema"]["additionalProperties"] = False


def _check_parameters(name: str, parameters: dict[str, Any], schema: dict[str, Any]) -> None:
    """Refuse in one line what the server would refuse. Values are not shown, because a URL may contain a password."""
    for key, value in parameters.items():
        if validate({key: value}, schema, ignore_required=True):
            variable = _read_defaults()[name].get(key)
            place = f"{variable}: " if variable and os.environ[variable] else ""
            expected = schema["properties"].get(key, {}).get("description", "")
            _fail(f"{place}{name} refuses this value of its parameter {key}; expected: {expected}")


def _merge_parameters(name: str, stored: dict[str, Any], sent: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters on the server with those of prefect.yaml whose variables are set; report differences."""
    variables, known = _read_defaults()[name], sent["parameter_openapi_schema"]["properties"]
    kept = {key: value for key, value in stored.items() if key in known}
    for key in stored.keys() - kept.keys():
        _report(f"{name}: removes {key}={stored[key]!r}, which is no parameter of this version")
    unset = {key: variable for key, variable in variables.items() if not os.environ.get(variable)}
    if unset:
        values = ", ".join(f"{key}={kept.get(key)!r}" for key in unset)
        _report(f"{name}: keeps {values}, because the environment has no {', '.join(unset.values())}")
    for key, value in sent["parameters"].items():
        if key in unset:
            continue
        if kept.get(key) != value:
            source = variables.get(key, "prefect.yaml")
            _report(f"{name}: sets {key}={value!r} from {source}; it was {kept.get(key)!r}")
        kept[key] = value
    return kept


def _merge(stored: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    merged = {**stored, **new}
    for key in stored.keys() & new.keys():
        if isinstance(stored[key], dict) and isinstance(new[key], dict):
            merged[key] = _merge(stored[key], new[key])
    return merged


async def _update_schedule(
    client: PrefectClient, name: str, stored: DeploymentResponse, deployment: DeploymentUpdate
) -> None:
    """Set the schedule of prefect.yaml if its variable is set. Other schedules stay."""
    new = next((one for one in deployment.schedules or [] if one.slug == _SLUG), None)
    if new is None or new.schedule is None or not os.environ.get(RESCORE_CRON, "").strip():
        return
    current = _find_schedule(name, stored.schedules)
    if current is None:
        schedule = DeploymentScheduleCreate(schedule=new.schedule, active=new.active is not False, slug=_SLUG)
        await client.create_deployment_schedules(stored.id, [schedule])
        _report(f"{name}: adds the schedule {_describe(new)}")
        return
    is_changed = current.schedule != new.schedule
    # An operator who paused the schedule keeps it paused.
    is_ended = new.active is False and current.active
    if is_changed or is_ended:
        _report(f"{name}: sets the schedule to {_describe(new)} from {RESCORE_CRON}; it was {_describe(current)}")
        active = False if new.active is False else None
        await client.update_deployment_schedule(stored.id, current.id, active=active, schedule=new.schedule)


def _find_schedule(name: str, schedules: list[DeploymentSchedule]) -> DeploymentSchedule | None:
    """Return the schedule that an earlier deployment created; earlier versions did not name it."""
    named = [one for one in schedules if one.slug == _SLUG]
    if not named and len(schedules) > 1:
        _fail(
            f"{name} has {len(schedules)} schedules, none of which is named {_SLUG}; expected at most one of them; "
            f"change them on the server, and leave {RESCORE_CRON} unset"
        )
    return next(iter(named or schedules), None)


def _describe(schedule: Any) -> str:
    times = schedule.schedule
    text = f"{times.cron!r} {times.timezone or 'UTC'}" if isinstance(times, CronSchedule) else str(times)
    return text if schedule.active else f"{text} (inactive)"


def _report(line: str) -> None:
    print(line, flush=True)


def _fail(line: str) -> NoReturn:
    print(f"prefect deploy: {line}", file=sys.stderr, flush=True)
    raise SystemExit(2)
