from datetime import timedelta

import pytest

from infra.prefect.runtime import HEARTBEAT_SECONDS, TAG

HEARTBEAT = timedelta(seconds=HEARTBEAT_SECONDS)
# How often a server evaluates automations, twice, and a worker looks for runs.
WAITS = timedelta(seconds=2 * 5 + 10)


def test_a_lost_run_ends_in_two_minutes_and_a_living_one_may_lose_a_heartbeat():
    from infra.prefect.automations import AUTOMATIONS, read_automations

    silent, dead, *_ = (one.trigger.within for one in read_automations(AUTOMATIONS))
    assert silent > 1.3 * HEARTBEAT and dead >= 2 * HEARTBEAT
    assert silent + dead + WAITS <= timedelta(minutes=2)


def test_automations_apply_to_runs_of_this_project_only():
    from infra.prefect.automations import AUTOMATIONS, NOTIFICATIONS, read_automations

    for path in (AUTOMATIONS, NOTIFICATIONS):
        for automation in read_automations(path):
            related = automation.trigger.match_related
            assert related.root == {"prefect.resource.id": f"prefect.tag.{TAG}", "prefect.resource.role": "tag"}


@pytest.mark.service
def test_a_deploy_updates_imported_automations_and_keeps_them_disabled(prefect_service):
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from infra.prefect.automations import AUTOMATIONS, create_automations, read_automations

    with temporary_settings({PREFECT_API_URL: prefect_service.url}), get_client(sync_client=True) as client:
        for one in client.read_automations():
            client.delete_automation(one.id)
        imported = prefect_service.prefect("automation", "create", "--from-file", str(AUTOMATIONS))
        assert imported.returncode == 0, imported.stdout + imported.stderr
        (line,) = create_automations(client)
        assert "no notification block named affwild2-notify" in line
        names = [one.name for one in read_automations(AUTOMATIONS)]
        stored = {one.name: one for one in client.read_automations()}
        assert set(stored) == set(names)
        client.pause_automation(stored[names[0]].id)
        changed = read_automations(AUTOMATIONS)[1]
        changed.description = "changed"
        client.update_automation(stored[names[1]].id, changed)
        client.delete_automation(stored[names[2]].id)
        assert list(create_automations(client))[:3] == [
            f"the automation {names[0]!r} is disabled and stays disabled",
            f"updates the automation {names[1]!r}",
            f"creates the automation {names[2]!r}",
        ]
        assert not client.read_automation(stored[names[0]].id).enabled
