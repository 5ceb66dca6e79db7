import math
import os
import subprocess
import sys

import pytest

from data_contracts.errors import InputError
from data_contracts.files import s3_lock
from data_contracts.files.local import UNFINISHED
from data_contracts.store.lock import check_code_version, lock_store
from data_contracts.store.store import Store

_HOLD = """
import sys
from data_contracts.store.store import Store
from data_contracts.store.lock import lock_store

with lock_store(Store(sys.argv[1]), on_wait=print):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("place", ["tmp_path", "s3_bucket"])
def test_second_run_waits_and_a_killed_run_releases_the_lock(place, request, monkeypatch):
    monkeypatch.setattr(s3_lock, "_POLL_SECONDS", 0.1)
    # The lock is released because its run has ended, not because it has expired.
    monkeypatch.setattr(s3_lock, "_LIFETIME_SECONDS", math.inf)
    url = str(request.getfixturevalue(place))
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        messages = []

        def on_wait(message):
            messages.append(message)
            holder.kill()

        with lock_store(Store(url), on_wait=on_wait):
            assert f"process {holder.pid} on " in messages[0] and "waiting until it ends" in messages[0]
    with lock_store(Store(url), on_wait=pytest.fail):
        pass


def test_unfinished_files_of_a_killed_run_are_removed(tmp_path):
    (tmp_path / UNFINISHED).mkdir()
    (tmp_path / UNFINISHED / "half").write_bytes(b"x")
    with lock_store(Store(tmp_path), on_wait=pytest.fail):
        assert not os.path.exists(tmp_path / UNFINISHED)


def test_store_of_a_newer_version_is_refused(tmp_path):
    store = Store(tmp_path)
    for version in (1, 1, 2):
        check_code_version(store, "stage", version)
    check_code_version(store, "other", 1)
    with pytest.raises(InputError, match=r"newer version \(stage 2, here 1\)"):
        check_code_version(store, "stage", 1)
