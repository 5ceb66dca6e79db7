from infra.machine import usable_cores, visible_gpus


def test_gpus_are_those_that_the_process_may_see(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, 5")
    assert visible_gpus() == ["2", "5"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_gpus() == []


def test_there_is_a_core():
    assert usable_cores() >= 1
