import pytest

from infra import cluster_state
from infra.cluster_state import ClusterLostError, ClusterState


class FakeClient:
    """A client that reports the given workers."""

    def __init__(self, *workers, cluster=None):
        self.workers, self.scheduler, self.cluster = workers, self, cluster

    def identity(self, n_workers):
        return {"workers": dict(enumerate(self.workers))}

    def sync(self, function, *, callback_timeout, **arguments):
        return function(**arguments)


def worker(nthreads=1, gpus=None, status="running"):
    return {"nthreads": nthreads, "resources": {} if gpus is None else {"GPU": gpus}, "status": status}


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 1000.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(cluster_state, "time", clock)
    return clock


@pytest.mark.parametrize(
    ("workers", "resources", "in_flight"),
    [
        ([worker(16), worker(16)], {}, 64),
        ([worker(16, gpus=1), worker(16, gpus=2), worker(16)], {"GPU": 1}, 8),
        ([worker(4, gpus=1)] * 20, {"GPU": 1}, 40),
        ([worker()], {}, 8),
    ],
)
def test_units_in_flight_are_twice_the_capacity(workers, resources, in_flight):
    state = ClusterState(FakeClient(*workers), resources)
    assert state.check() is None and state.in_flight == in_flight


@pytest.mark.parametrize(
    ("workers", "resources", "cause"),
    [
        ([], {}, "no worker is left;"),
        ([worker()], {"GPU": 1}, "no worker is left that offers a GPU;"),
        ([worker(status="paused")], {}, "every worker is paused by its memory limit"),
    ],
)
def test_a_cluster_without_usable_workers_is_reported_once_and_lost_after_the_timeout(clock, workers, resources, cause):
    client = FakeClient(*workers)
    state = ClusterState(client, resources)
    assert state.check() is None
    clock.now += 6
    assert cause in state.check() and state.check() is None
    client.workers = (worker(gpus=1),)
    assert state.check() is None
    client.workers = workers
    clock.now += 500
    assert state.check() is None
    clock.now += 301
    with pytest.raises(ClusterLostError, match=cause.rstrip(";")):
        state.check()


def test_progress_of_paused_workers_restarts_the_timeout(clock):
    state = ClusterState(FakeClient(worker(status="paused")), {})
    for _ in range(5):
        assert state.check() is None
        clock.now += 200
        state.record_progress()


def test_local_workers_that_do_not_return_end_the_run_after_a_minute(clock):
    state = ClusterState(FakeClient(cluster="local"), {})
    assert state.check() is None
    clock.now += 6
    assert state.check() == "no worker is left; waiting up to 60 s"
    clock.now += 60
    with pytest.raises(ClusterLostError, match=r"^no worker is left, for 60 s; use fewer workers .* more memory$"):
        state.check()
