import json
import threading
import time

import pytest

from data_contracts.errors import StoreError
from data_contracts.files import s3_lock
from data_contracts.files.s3 import S3Files
from data_contracts.files.s3_lock import LOCK, S3Lock


@pytest.fixture
def files(s3_bucket, monkeypatch):
    monkeypatch.setattr(s3_lock, "_ASK_SECONDS", 0.1)
    return S3Files(f"{s3_bucket}/store")


def put_lock_of(files, **about):
    """A lock as a run on another machine leaves it."""
    about = {"owner": "process 1 on elsewhere", "machine": "elsewhere", "token": "other", "process": 1} | about
    note = json.dumps(about)
    assert files.replace_if(LOCK, note.encode(), etag=None, note=note)


def test_of_many_at_once_one_holds_it_and_then_the_next(files):
    holding, most, told = [], [], []

    def hold():
        lock = S3Lock(files)
        lock.take(told.append)
        holding.append(lock)
        most.append(len(holding))
        time.sleep(0.05)
        holding.remove(lock)
        lock.release()

    runs = [threading.Thread(target=hold) for _ in range(4)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert most == [1] * 4 and files.head(LOCK) is None
    assert all("is using this store; waiting until it ends" in line for line in told)


def test_a_holder_elsewhere_is_believed_until_it_is_not_renewed(files, monkeypatch):
    put_lock_of(files)
    told = []

    def a_minute_passes(text):
        told.append(text)
        monkeypatch.setattr(s3_lock, "_LIFE_SECONDS", -1.0)

    lock = S3Lock(files)
    lock.take(a_minute_passes)
    assert told == [f"{files.url}: process 1 on elsewhere is using this store; waiting until it ends"]
    lock.raise_if_lost()
    lock.release()
    assert files.head(LOCK) is None


def test_lock_is_renewed_while_it_is_held(files, monkeypatch):
    monkeypatch.setattr(s3_lock, "_RENEW_SECONDS", 0.05)
    lock = S3Lock(files)
    lock.take(pytest.fail)
    first = files.head(LOCK).etag
    while files.head(LOCK).etag == first:
        time.sleep(0.05)
    lock.raise_if_lost()
    lock.release()


def test_who_lost_the_store_is_told(files, monkeypatch):
    monkeypatch.setattr(s3_lock, "_RENEW_SECONDS", 0.05)
    lock = S3Lock(files)
    lock.take(pytest.fail)
    note = json.dumps({"owner": "process 2 on elsewhere", "token": "other"})
    while not files.replace_if(LOCK, b"", etag=files.head(LOCK).etag, note=note):
        pass
    with pytest.raises(StoreError, match="process 2 on elsewhere took it over"):
        while True:
            lock.raise_if_lost()
            time.sleep(0.05)
    lock.release()
    assert files.head(LOCK).note == note


def test_a_lost_answer_does_not_lock_its_sender_out(files, monkeypatch):
    whole, tries = S3Files.replace_if, []

    def answer_lost(self, path, data, **kwargs):
        tries.append(whole(self, path, data, **kwargs))
        return None if len(tries) == 1 else tries[-1]

    monkeypatch.setattr(S3Files, "replace_if", answer_lost)
    lock = S3Lock(files)
    lock.take(pytest.fail)
    lock.release()
    assert len(tries) == 1 and files.head(LOCK) is None


def test_an_object_of_others_is_waited_for(files, monkeypatch):
    files.replace_if(LOCK, b"something", etag=None, note="")
    told = []
    lock = S3Lock(files)
    lock.take(lambda text: (told.append(text), files.remove(LOCK)))
    assert "another run is using this store" in told[0]
    lock.release()
