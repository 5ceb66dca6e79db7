from pathlib import Path

import pytest

from flows.engine import workers


@pytest.mark.parametrize(
    ("places", "certain"),
    [
        ({"store": "{tmp}/new"}, True),
        ({"store": None, "out": Path("{tmp}/new")}, True),
        ({"store": None, "out": Path("{tmp}")}, False),
        ({"store": "{tmp}/store"}, False),
        ({"store": "s3://bucket/new"}, False),
        ({"store": "{tmp}/new", "dask_address": "tcp://127.0.0.1:8786"}, False),
    ],
)
def test_workers_start_ahead_where_work_is_certain(tmp_path, monkeypatch, places, certain):
    (tmp_path / "store").mkdir()
    started = []
    monkeypatch.setattr(workers, "start_forking", started.append)
    filled = {k: type(v)(str(v).format(tmp=tmp_path)) if v else None for k, v in places.items()}
    workers.start_ahead(**filled)
    assert started == ([workers.WORKER_MODULES] if certain else [])
