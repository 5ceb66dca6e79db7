from datetime import UTC, datetime

import pytest

from data_contracts.files.account import InputAccount
from data_contracts.store.bundles import list_bundles
from data_contracts.store.input_accounts import INPUTS, InputsDetails
from data_contracts.store.store import Store
from flows.commands.parameters import StatusParameters
from flows.commands.status import print_status
from flows.engine.run import Run
from flows.engine.run_results import SomeFailedError
from tasks.pages.write_report import write_report


@pytest.fixture
def data(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


def account_of(data, *skipped, used=1):
    account = InputAccount("videos", data)
    account.use(used)
    for name in skipped:
        account.skip(f"{data}/{name}", "not a video")
    return account


def test_a_skipped_input_ends_the_run_with_an_error_and_is_kept_in_the_store(tmp_path, data, capsys):
    with Run(str(tmp_path)) as run:
        run.report_inputs(account_of(data, "a.xyz", ".DS_Store", used=10))
        with pytest.raises(SomeFailedError, match=r"^1 skipped; first: videos: 1 skipped, not a video: a\.xyz$"):
            run.raise_for_failures()
    printed = capsys.readouterr().out.splitlines()
    assert printed == [
        f"videos in {data}: 12 found, 10 used, 2 skipped",
        "videos: 1 skipped, not a video: a.xyz",
        "videos: 1 ignored, hidden files and files of operating systems: .DS_Store",
    ]
    (bundle,) = list_bundles(Store(tmp_path), INPUTS)
    assert bundle.folder.startswith("inputs/videos-") and InputsDetails.of(bundle) == run.inputs[0]
    (tmp_path / "videos").mkdir()
    assert print_status(StatusParameters(str(tmp_path))) == 1
    assert printed[1] in capsys.readouterr().out
    page = tmp_path / write_report(Store(tmp_path), name="store", written=datetime.now(UTC))
    assert "<h2>Inputs</h2>" in page.read_text() and "a.xyz" in page.read_text()


def test_harmless_files_do_not_end_the_run_with_an_error(tmp_path, data):
    with Run(str(tmp_path)) as run:
        run.report_inputs(account_of(data, ".DS_Store"))
        run.raise_for_failures()


def test_known_skipped_files_count_only_where_they_are_asked_for(tmp_path, data):
    with Run(str(tmp_path)) as run:
        run.report_inputs(account_of(data, "a.xyz", "b.xyz"), known=2)
        run.raise_for_failures(known=False)
        with pytest.raises(SomeFailedError, match="2 skipped"):
            run.raise_for_failures()


def test_an_equal_account_is_not_written_again_and_another_one_replaces_it(tmp_path, data):
    with Run(str(tmp_path)) as run:
        run.report_inputs(account_of(data, "a.xyz"))
        (path,) = (tmp_path / INPUTS).glob("*/manifest.json")
        before = path.stat().st_mtime_ns
        run.report_inputs(account_of(data, "a.xyz"))
        assert path.stat().st_mtime_ns == before
        run.report_inputs(account_of(data))
    (bundle,) = list_bundles(Store(tmp_path), INPUTS)
    assert InputsDetails.of(bundle).skipped == ()
