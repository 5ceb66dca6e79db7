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
    monkeypatch.setattr(s3_lock, "_POLL_SECONDS", 0.1)
    return S3Files(f"{s3_bucket}/store")


def write_lock_of_another_machine(files):
    holder = {"owner": "process 1 on elsewhere", "machine": "elsewhere", "token": "other", "process": 1}
    assert files.replace_if(LOCK, json.dumps(holder), etag=None)


def test_runs_hold_the_lock_one_after_the_other(files):
    holding, counts, messages = [], [], []

    def hold():
        lock = S3Lock(files)
        lock.acquire(messages.append)
        holding.append(lock)
        counts.append(len(holding))
        time.sleep(0.05)
        holding.remove(lock)
        lock.release()

    runs = [threading.Thread(target=hold) for _ in range(4)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert counts == [1] * 4 and files.head(LOCK) is None
    assert all("is using this store; waiting until it ends" in message for message in messages)


def test_the_lock_of_another_machine_is_respected_until_it_expires(files, monkeypatch):
    write_lock_of_another_machine(files)
    messages = []

    def expire(message):
        messages.append(message)
        monkeypatch.setattr(s3_lock, "_LIFETIME_SECONDS", -1.0)

    lock = S3Lock(files)
    lock.acquire(expire)
    assert messages == [f"{files.url}: process 1 on elsewhere is using this store; waiting until it ends"]
    lock.raise_if_lost()
    lock.release()
    assert files.head(LOCK) is None


def test_the_lock_is_renewed_while_it_is_held(files, monkeypatch):
    monkeypatch.setattr(s3_lock, "_RENEWAL_SECONDS", 0.05)
    lock = S3Lock(files)
    lock.acquire(pytest.fail)
    first = files.head(LOCK).etag
    while files.head(LOCK).etag == first:
        time.sleep(0.05)
    lock.raise_if_lost()
    lock.release()


def test_a_run_that_lost_the_lock_ends(files, monkeypatch):
    monkeypatch.setattr(s3_lock, "_RENEWAL_SECONDS", 0.05)
    lock = S3Lock(files)
    lock.acquire(pytest.fail)
    note = json.dumps({"owner": "process 2 on elsewhere", "token": "other"})
    while not files.replace_if(LOCK, note, etag=files.head(LOCK).etag):
        pass
    with pytest.raises(StoreError, match="process 2 on elsewhere took it over"):
        while True:
            lock.raise_if_lost()
            time.sleep(0.05)
    lock.release()
    assert files.head(LOCK).note == note


def test_a_run_acquires_the_lock_although_the_answer_to_its_write_was_lost(files, monkeypatch):
    write, answers = S3Files.replace_if, []

    def lose_first_answer(self, path, note, **kwargs):
        answers.append(write(self, path, note, **kwargs))
        return None if len(answers) == 1 else answers[-1]

    monkeypatch.setattr(S3Files, "replace_if", lose_first_answer)
    lock = S3Lock(files)
    lock.acquire(pytest.fail)
    lock.release()
    assert len(answers) == 1 and files.head(LOCK) is None


def test_a_lock_with_unknown_content_is_respected(files):
    files.replace_if(LOCK, "something", etag=None)
    messages = []
    lock = S3Lock(files)
    lock.acquire(lambda message: (messages.append(message), files.remove(LOCK)))
    assert "another run is using this store" in messages[0]
    lock.release()
