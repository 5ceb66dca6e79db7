"""Manifests that were read before: every stage of a run lists the same folders, and most files are as they were."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from data_contracts.manifest import Manifest, UnitKey, is_failure_path, key_of_manifest_path


class FileState(NamedTuple):
    """Size of a file, and what changes when the file does (None if nothing tells)."""

    size_bytes: int
    mark: Any = None


class ManifestCache:
    """Key and manifest of each path, for as long as the file is the one that was read."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[FileState, UnitKey, Manifest | None]] = {}

    def of_files(
        self, files: Mapping[str, FileState], read_many: Callable[[Sequence[str]], list[bytes]]
    ) -> list[tuple[UnitKey, Manifest]]:
        """What the manifests among the files say, those that are not whole left out; unknown ones are read."""
        paths = [path for path in files if path.endswith(".json") and not is_failure_path(path)]
        unknown = [path for path in paths if not self._is_known(path, files[path])]
        keys = {path: key_of_manifest_path(path) for path in unknown}
        to_read = [path for path in unknown if keys[path]]
        for path, data in zip(to_read, read_many(to_read), strict=True):
            key = keys[path]
            assert key is not None
            self._known[path] = files[path], key, Manifest.from_json(data)
        found = (self._known[path][1:] for path in paths if path in self._known)
        return [(key, manifest) for key, manifest in found if manifest]

    def _is_known(self, path: str, state: FileState) -> bool:
        return state.mark is not None and path in self._known and self._known[path][0] == state
