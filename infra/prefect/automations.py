"""Automations of a Prefect server: they end runs whose process is gone, and send notifications.

Both are defined by files that ``prefect automation create --from-file`` also accepts.
"""

from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import yaml
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import BlockDocument
from prefect.events.actions import SendNotification
from prefect.events.schemas.automations import AutomationCore

NOTIFICATION_BLOCK = "affwild2-notify"
_FOLDER = Path(__file__).parent
AUTOMATIONS, NOTIFICATIONS = _FOLDER / "automations.yaml", _FOLDER / "notifications.yaml"


def read_automations(path: Path) -> list[AutomationCore]:
    """Return the automations that a file defines."""
    return [AutomationCore.model_validate(one) for one in yaml.safe_load(path.read_text())["automations"]]


def create_automations(client: SyncPrefectClient) -> Iterator[str]:
    """Create the automations that are missing on a server; yield a line per change.

    Those that end runs belong to the program and are updated; only whether they are enabled stays. Notifications are
    created if the server has the block, and stay as an operator has changed them.
    """
    stored = {one.name: one for one in client.read_automations()}
    for automation in read_automations(AUTOMATIONS):
        found = stored.get(automation.name)
        if found is None:
            client.create_automation(automation)
            yield f"creates the automation {automation.name!r}"
            continue
        automation.enabled = found.enabled
        if not found.enabled:
            yield f"the automation {automation.name!r} is disabled and stays disabled"
        if automation.model_dump() != AutomationCore.model_validate(found.model_dump()).model_dump():
            client.update_automation(found.id, automation)
            yield f"updates the automation {automation.name!r}"
    missing = [one for one in read_automations(NOTIFICATIONS) if one.name not in stored]
    if not missing:
        return
    block = _find_block(client)
    if block is None:
        yield (
            f"creates no notifications of failed, late and stuck runs, because the server has no notification block "
            f"named {NOTIFICATION_BLOCK}; save one and deploy again"
        )
        return
    for automation in missing:
        _notify_with(block.id, automation)
        client.create_automation(automation)
        yield f"creates the automation {automation.name!r}"


def _find_block(client: SyncPrefectClient) -> BlockDocument | None:
    return next((one for one in client.read_block_documents() if one.name == NOTIFICATION_BLOCK), None)


def _notify_with(block: UUID, automation: AutomationCore) -> None:
    for action in automation.actions:
        if isinstance(action, SendNotification):
            action.block_document_id = block
