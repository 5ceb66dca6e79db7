import os
import time

import pytest

from data_contracts.challenge.submissions import zip_bytes
from data_contracts.errors import InputError
from data_contracts.store.bundles import write_bundle
from data_contracts.store.store import Store
from flows.commands.download import download_submission
from flows.commands.parameters import DownloadSubmissionParameters as Parameters
from tests.details_factory import submission_details
from tests.processes import run_command

NAMES = ("abaw3-expr-1a2b3c4d", "abaw3-va-11223344")
DETAILS = submission_details("expr", "a_b.zip")


def zip_of(name):
    return zip_bytes({"a.txt": name.encode() * 500})


@pytest.fixture(params=["disk", "s3"])
def store(request, tmp_path):
    """Make a store, on disk or on S3, with two submissions. The first is the newest."""
    url = str(tmp_path / "store") if request.param == "disk" else request.getfixturevalue("s3_bucket") + "/store"
    store = Store(url)
    for name in reversed(NAMES):
        write_bundle(store, f"submissions/{name}", {"a_b.zip": zip_of(name)}, fingerprint=name, details=DETAILS)
        if request.param == "disk":
            os.utime(store.locate(f"submissions/{name}/manifest.json"), (0, 1e9 - NAMES.index(name)))
        elif name == NAMES[1]:
            # S3 stores times in whole seconds.
            time.sleep(1.1)
    return store


def test_the_latest_or_a_named_submission_is_written_once(store, tmp_path):
    to = tmp_path / "here"
    environment = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    finished = run_command("download", "submission", "--store", store.url, "--to", to, environment=environment)
    assert finished.returncode == 0, finished.stderr
    file = to / f"{NAMES[0]}.zip"
    assert file.read_bytes() == zip_of(NAMES[0]) and str(file) in finished.stdout
    before = file.stat()
    assert download_submission(Parameters(store.url, run=NAMES[0], to=str(to))) == 0
    assert file.stat() == before
    file.write_bytes(b"truncated")
    download_submission(Parameters(store.url, run="abaw3-expr", to=str(to)))
    download_submission(Parameters(store.url, run=NAMES[1], to=str(to)))
    assert file.read_bytes() == zip_of(NAMES[0])
    assert sorted(path.name for path in to.iterdir()) == [f"{name}.zip" for name in NAMES]


def test_missing_or_damaged_submissions_are_reported_in_one_line_and_not_written(store, tmp_path):
    to = tmp_path / "here"

    def cause_of(run="latest", url=store.url):
        with pytest.raises(InputError) as caught:
            download_submission(Parameters(url, run=run, to=str(to)))
        return str(caught.value)

    there = ", ".join(NAMES)
    assert f"got 'abaw4': no name begins with it; submissions: {there}" in cause_of("abaw4")
    assert f"got 'abaw3': several names begin with it; submissions: {there}" in cause_of("abaw3")
    assert f"got '': no name begins with it; submissions: {there}" in cause_of("")
    assert "expected a store of affwild2, found nothing there" in cause_of(url=f"{store.url}-2")
    place, whole = f"submissions/{NAMES[0]}/a_b.zip", zip_of(NAMES[0])
    store.write_bytes(place, whole[:-30])
    assert "truncated" in cause_of() and f"{len(whole) - 30:,} bytes" in cause_of()
    store.write_bytes(place, zip_of("another"))
    assert "expected sha256" in cause_of(NAMES[0]) and "truncated" not in cause_of(NAMES[0])
    store.remove(place)
    assert f"expected the zip of submission {NAMES[0]}, found none" in cause_of(NAMES[0])
    assert not to.exists()


def test_a_read_only_folder_is_reported_in_one_line(store, tmp_path):
    (tmp_path / "file").write_text("")
    for to in (str(tmp_path / "file"), "s3://bucket/folder"):
        with pytest.raises(InputError, match=r"--to: expected a (writable )?folder"):
            download_submission(Parameters(store.url, to=to))
