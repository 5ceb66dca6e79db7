import pytest

from data_contracts.files.inputs import FileState
from data_contracts.store.manifest import Manifest, UnitKey
from data_contracts.store.manifest_index import ManifestCache

KEY = UnitKey("faces", (("video", "a"),))


def manifest(rows):
    return Manifest("f", "i", "p", 1, rows)


@pytest.mark.parametrize(("mark", "reads"), [((1, 2), 1), (None, 3)])
def test_a_file_is_read_once_as_long_as_it_is_the_same(mark, reads):
    cache, asked = ManifestCache(), []

    def read(paths):
        asked.extend(paths)
        return [manifest(5).to_json() for _ in paths]

    files = {KEY.manifest_path: FileState(9, mark), KEY.failure_path: FileState(9, mark), "faces/x": FileState(1, mark)}
    for _ in range(3):
        assert cache.of_files("faces", files, read) == [(KEY, manifest(5))]
    assert asked == [KEY.manifest_path] * reads


def test_a_file_that_changes_is_read_again_and_garbage_is_nothing():
    cache = ManifestCache()
    for state, data, expected in (
        (FileState(9, (1, 1)), manifest(1).to_json(), [(KEY, manifest(1))]),
        (FileState(9, (2, 1)), manifest(2).to_json(), [(KEY, manifest(2))]),
        (FileState(9, (2, 7)), b"garbage", []),
        (FileState(9, (3, 7)), manifest(3).to_json(), [(KEY, manifest(3))]),
    ):
        found = cache.of_files("faces", {KEY.manifest_path: state}, lambda paths, data=data: [data for _ in paths])
        assert found == expected
    assert cache.of_files("faces", {}, lambda paths: []) == []
