import os

from infra.prefect_runtime import quiet_prefect, server_is_named


def test_a_server_is_named_by_its_variable(monkeypatch):
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    assert not server_is_named()
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:4200/api")
    assert server_is_named()


def test_nothing_phones_home_and_a_users_setting_stays(monkeypatch):
    monkeypatch.setenv("PREFECT_LOGGING_LEVEL", "DEBUG")
    monkeypatch.delenv("DO_NOT_TRACK")
    with quiet_prefect():
        assert os.environ["DO_NOT_TRACK"] == "1"
        assert os.environ["PREFECT_LOGGING_LEVEL"] == "DEBUG"
        from prefect.settings import get_current_settings

        assert get_current_settings().flows.heartbeat_frequency is None
