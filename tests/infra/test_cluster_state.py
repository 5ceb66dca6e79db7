import pytest

from infra import cluster_state
from infra.cluster_state import ClusterLostError, ClusterState


class Told:
    """A client that tells of made-up workers."""

    def __init__(self, *workers):
        self.workers = workers

    def scheduler_info(self, n_workers):
        return {"workers": dict(enumerate(self.workers))}


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
def test_twice_as_many_units_as_can_be_at_work_are_given_out(workers, resources, in_flight):
    state = ClusterState(Told(*workers), resources)
    assert state.look() is None and state.in_flight == in_flight


@pytest.mark.parametrize(
    ("workers", "resources", "why"),
    [
        ([], {}, "no worker is left;"),
        ([worker()], {"GPU": 1}, "no worker is left that offers a GPU;"),
        ([worker(status="paused")], {}, "every worker is paused by its memory limit"),
    ],
)
def test_a_cluster_that_cannot_go_on_is_told_of_once_and_given_up_after_a_while(clock, workers, resources, why):
    client = Told(*workers)
    state = ClusterState(client, resources)
    assert state.look() is None
    clock.now += 6
    assert why in state.look() and state.look() is None
    client.workers = (worker(gpus=1),)
    assert state.look() is None
    client.workers = workers
    clock.now += 500
    assert state.look() is None
    clock.now += 301
    with pytest.raises(ClusterLostError, match=why.rstrip(";")):
        state.look()


def test_a_paused_worker_may_still_finish_what_it_has_begun(clock):
    state = ClusterState(Told(worker(status="paused")), {})
    for _ in range(5):
        assert state.look() is None
        clock.now += 200
        state.progressed()
