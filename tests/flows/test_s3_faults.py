"""Commands on an S3 server that answers with errors, cuts connections or is slow."""

import pytest
from distributed import Client

from data_contracts.files.locations import location
from flows.commands.exit_codes import guarded
from flows.commands.parameters import StatusParameters
from flows.commands.status import print_status
from flows.score import score
from tasks.demo.generate import DemoDataParams, generate_demo_data
from tests.flaky_s3 import (
    CUT_ANSWER,
    CUT_BEFORE,
    CUT_BODY,
    CUT_UPLOAD,
    DENIED,
    ERROR_500,
    SLOW_DOWN,
    TRICKLE,
    Fault,
    flaky_s3,
)
from tests.s3_server import use_s3

pytestmark = pytest.mark.service

# About every tenth request fails, including retries.
FAULTS = {
    ERROR_500: ("GET|PUT|DELETE|HEAD", 41),
    SLOW_DOWN: ("GET|PUT|DELETE|HEAD", 29),
    CUT_BEFORE: ("GET|PUT|DELETE|HEAD", 37),
    CUT_ANSWER: ("PUT|DELETE", 7),
    CUT_UPLOAD: ("PUT", 5),
    CUT_BODY: ("GET", 11),
    TRICKLE: ("GET", 13),
}


@pytest.fixture
def flaky(s3_bucket, s3_address, dask_address):
    """A proxy that this process and the workers use; it has no faults yet."""
    with flaky_s3(s3_address) as proxy, Client(dask_address) as client:
        for address in (proxy.address, s3_address):
            use_s3(address)
            client.run(use_s3, address)
            if address == proxy.address:
                yield proxy


def test_faults_do_not_change_the_results(flaky, s3_bucket, dask_address, tmp_path):
    generate_demo_data(tmp_path / "data", params=DemoDataParams(1, 0, 0, frames=24))
    (tmp_path / "data" / "videos" / "corrupt.mp4").unlink()
    videos, out = location(f"{s3_bucket}/videos"), location(f"{s3_bucket}/out")
    videos.fs.put(f"{tmp_path / 'data' / 'videos'}/", videos.path, recursive=True)
    found = []
    for faults in (), [Fault(kind, method, every=every) for kind, (method, every) in FAULTS.items()]:
        flaky.spoil(*faults)
        score([str(videos)], str(out), dask_address=dask_address)
        spoiled = {request.spoiled for request in flaky.log}
        flaky.spoil()
        out.fs.invalidate_cache()
        files = out.fs.cat(out.fs.find(out.path))
        found.append({name: data for name, data in files.items() if "manifest" not in name})
        out.fs.rm(out.path, recursive=True)
    assert found[0] == found[1] and any(name.endswith(".csv") for name in found[0])
    assert spoiled == {*FAULTS, None}


def test_problems_with_a_bucket_are_reported_in_one_line(flaky, s3_bucket, capsys):
    def message(store):
        assert guarded(lambda: print_status(StatusParameters(store))) == 2
        (line,) = capsys.readouterr().err.strip().split("\n")
        return line

    assert "expected a store of affwild2, found nothing there; check --store, or run affwild2 extract first" in message(
        f"{s3_bucket}/store"
    )
    assert f"got: there is no bucket never-made at {flaky.address}; check its name" in message("s3://never-made/store")
    flaky.spoil(Fault(DENIED))
    assert "got: no permission (Access Denied); check the credentials" in message(f"{s3_bucket}/store")
