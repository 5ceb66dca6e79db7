import errno
from dataclasses import dataclass, replace

import av
import pyarrow as pa
import pytest
from PIL import UnidentifiedImageError

from data_contracts.errors import InputError, InvalidFileError, RefusedFilesError
from data_contracts.schemas.faces import FRAMES, VIDEOS
from data_contracts.store.manifest import UnitKey
from data_contracts.store.store import Store
from tasks.units import Product, Unit, remove_unplanned, run_unit, split_pending


@dataclass(frozen=True)
class Args:
    """``frames``: number of rows, or a key of ``ERRORS``."""

    frames: int | str | None


def unit(video, fingerprint="a" * 64, part="00000", frames=3):
    return Unit(UnitKey("frames", (("video", video),), part), fingerprint, Args(frames))


ERRORS = {
    None: (InvalidFileError("no frames; use another file"), None),
    "names": (RefusedFilesError("two files of one name"), None),
    "changed": (InputError("it was changed"), None),
    "forbidden": (InvalidFileError("no permission"), PermissionError(errno.EACCES, "no permission")),
    "full disk": (InvalidFileError("not written"), OSError(errno.ENOSPC, "no space")),
    "memory": (InvalidFileError("no frames"), MemoryError()),
    "picture": (InvalidFileError("no picture"), UnidentifiedImageError("no picture")),
    "decoder": (InvalidFileError("no video"), av.error.OSError(errno.EIO, "input/output error")),
}


def compute(store, unit):
    if unit.arguments.frames in ERRORS:
        error, cause = ERRORS[unit.arguments.frames]
        raise error from cause

    def tables():
        for number in range(1, unit.arguments.frames + 1):
            if number > 5:
                raise InputError("the file ends early")
            product.counts["frames"] += 1
            columns = {"frame": [number], "pts": [number], "pts_seconds": [number / 25], "keyframe": [True]}
            yield pa.Table.from_pydict(columns, schema=FRAMES.schema)

    product = Product(FRAMES, tables())
    return product


def test_units_with_the_planned_fingerprint_are_ready(tmp_path):
    store = Store(tmp_path)
    units = [unit("a"), unit("b")]
    assert split_pending(store, units)[:2] == ([], units)
    report = run_unit(store.url, compute, units[0])
    assert report.cause is None and report.counts == {"frames": 3}
    assert split_pending(store, units) == ([units[0]], [units[1]], [], [])
    assert split_pending(store, [unit("a", "b" * 64)])[0] == []
    companion = Unit(
        units[0].key,
        units[0].fingerprint,
        Args(3),
        companions=((UnitKey("videos", (("video", "a"),)), units[0].fingerprint),),
    )
    assert split_pending(store, [companion])[0] == []


@pytest.mark.parametrize("frames", [None, 9])
def test_error_of_the_input_is_stored_and_leaves_no_data(tmp_path, frames):
    store = Store(tmp_path)
    report = run_unit(store.url, compute, unit("a", frames=frames))
    assert report.cause in ("no frames; use another file", "the file ends early")
    assert store.manifests("frames") == {}
    assert [note.cause for note in store.failures("frames").values()] == [report.cause]
    assert not list(tmp_path.rglob("*.parquet")) and not list(tmp_path.rglob("*.tmp"))


def test_unit_that_failed_too_often_is_quarantined_until_its_input_changes(tmp_path):
    store, bad, good = Store(tmp_path), unit("bad", frames=None), unit("good")

    def try_it(*units, max_tries=2):
        pending = split_pending(store, units, max_tries=max_tries)
        for one in pending.todo:
            run_unit(store.url, compute, one)
            if note := store.failure_of(one.key):
                store.note_failure(one.key, replace(note, tries=note.tries + 1))
        return [one.name for one in pending.todo], [(one.name, note.tries) for one, note in pending.quarantined]

    assert try_it(bad, good) == (["bad", "good"], [])
    since = store.failure_of(bad.key).since
    assert try_it(bad, good) == (["bad"], [])
    assert try_it(bad, good) == ([], [("bad", 2)])
    assert try_it(bad, max_tries=None) == (["bad"], []), "without a limit it is tried"
    assert try_it(bad) == ([], [("bad", 3)]) and store.failure_of(bad.key).since == since
    assert try_it(unit("bad", "b" * 64, frames=None)) == (["bad"], []), "another input"
    assert try_it(bad) == (["bad"], []), "the count starts again"


@pytest.mark.parametrize(
    ("frames", "fault"),
    [
        *((None, "input"), ("picture", "input"), ("decoder", "input"), ("names", "names")),
        *((cause, "other") for cause in ("changed", "forbidden", "full disk", "memory")),
    ],
)
def test_only_what_a_reader_found_in_the_input_is_a_fault_of_the_input(tmp_path, frames, fault):
    """Errors of disks, memory and permissions are faults of the machine, also where a reader wraps them."""
    store, one = Store(tmp_path), unit("a", frames=frames)
    assert run_unit(store.url, compute, one).fault == fault
    assert store.failure_of(one.key).tries == 0, "the end of the stage decides whether it counts"


def test_units_that_are_no_longer_planned_are_removed(tmp_path):
    store = Store(tmp_path)
    for one in (unit("a"), unit("a", part="00001"), unit("b", part="00007")):
        run_unit(store.url, compute, one)
    remove_unplanned(store, [unit("a")])
    assert [(k.value("video"), k.part) for k in store.manifests("frames")] == [("a", "00000"), ("b", "00007")]
    assert len(list(tmp_path.rglob("*.parquet"))) == 2


def test_new_version_of_a_unit_replaces_the_data_files_of_earlier_ones(tmp_path):
    """Readers of all data files would find rows twice otherwise."""
    store, companion = Store(tmp_path), UnitKey("videos", (("video", "a"),))
    for fingerprint in ("a" * 64, "b" * 64):
        # The last attempt was interrupted between the data and the manifest.
        store.write_unit(unit("a").key, FRAMES, [], fingerprint=fingerprint)
        store.write_unit(companion, VIDEOS, [], fingerprint=fingerprint)
        run_unit(store.url, compute, unit("a", "a" * 64))
    run_unit(store.url, compute, unit("a", part="00001"))
    new = replace(unit("a", "c" * 64), companions=((companion, "d" * 64),))
    (todo,) = split_pending(store, [new]).todo
    assert sorted(todo.stale_parts) == sorted(
        key.part_path(letter * 64) for key in (new.key, companion) for letter in "ab"
    )
    assert len(list(tmp_path.rglob("*.parquet"))) == 5, "earlier versions are kept until the new one exists"
    assert run_unit(store.url, compute, todo).cause is None
    assert sorted(path.name for path in tmp_path.rglob("*.parquet")) == [
        "part-00000-cccccccc.parquet",
        "part-00001-aaaaaaaa.parquet",
    ]
