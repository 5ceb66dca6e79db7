import os

from infra.prefect_runtime import local_prefect


def test_nothing_phones_home_and_a_users_setting_stays(monkeypatch):
    monkeypatch.setenv("PREFECT_LOGGING_LEVEL", "DEBUG")
    monkeypatch.delenv("PREFECT_SERVER_ANALYTICS_ENABLED")
    with local_prefect():
        assert os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
        assert os.environ["PREFECT_LOGGING_LEVEL"] == "DEBUG"
        from prefect.settings import get_current_settings

        assert get_current_settings().flows.heartbeat_frequency is None
