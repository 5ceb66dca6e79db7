import pytest

from infra.patience import patience_seconds


def test_five_minutes_unless_something_else_is_said(monkeypatch):
    monkeypatch.delenv("AFFWILD2_PATIENCE_SECONDS", raising=False)
    assert patience_seconds() == 300
    monkeypatch.setenv("AFFWILD2_PATIENCE_SECONDS", "2.5")
    assert patience_seconds() == 2.5


@pytest.mark.parametrize("said", ["0", "-3", "soon", "inf", "nan"])
def test_patience_is_a_number_of_seconds(said, monkeypatch):
    monkeypatch.setenv("AFFWILD2_PATIENCE_SECONDS", said)
    with pytest.raises(ValueError, match=f"expected a number of seconds above 0, got '{said}'"):
        patience_seconds()
