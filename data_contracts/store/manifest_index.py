"""Manifests that were read before: every stage of a run lists the same folders, and most files are as they were."""

from collections.abc import Callable, Mapping, Sequence

from data_contracts.files.inputs import FileState
from data_contracts.store.kept_manifests import Kept, KeptManifests
from data_contracts.store.manifest import Manifest, UnitKey, is_failure_path, key_of_manifest_path

# A file of kept manifests is written anew when so large a share of it was read from the store.
_SHARE_READ = 0.01


class ManifestCache:
    """Key and manifest of each path, for as long as the file is the one that was read.

    ``kept``: where they stay between processes; None where reading them costs nothing.
    """

    def __init__(self, kept: KeptManifests | None = None) -> None:
        self._known: dict[str, tuple[FileState, UnitKey, Manifest | None]] = {}
        self._kept = kept
        self._compared: set[str] = set()

    def of_files(
        self, folder: str, files: Mapping[str, FileState], read_many: Callable[[Sequence[str]], list[bytes]]
    ) -> list[tuple[UnitKey, Manifest]]:
        """What the manifests among the files below a folder say, those that are not whole left out.

        Unknown ones are read.
        """
        paths = [path for path in files if path.endswith(".json") and not is_failure_path(path)]
        unknown = [path for path in paths if not self._is_known(path, files[path])]
        keys = {path: key for path in unknown if (key := key_of_manifest_path(path))}
        data = self._read(folder, files, list(keys), read_many)
        for path, key in keys.items():
            self._known[path] = files[path], key, Manifest.from_json(data[path])
        found = (self._known[path][1:] for path in paths if path in self._known)
        return [(key, manifest) for key, manifest in found if manifest]

    def _is_known(self, path: str, state: FileState) -> bool:
        return state.version is not None and path in self._known and self._known[path][0] == state

    def _read(
        self,
        folder: str,
        files: Mapping[str, FileState],
        paths: Sequence[str],
        read_many: Callable[[Sequence[str]], list[bytes]],
    ) -> dict[str, bytes]:
        if self._kept is None:
            return dict(zip(paths, read_many(paths), strict=True))
        gone = [path for path in self._known if path not in files and path.startswith(f"{folder}/")]
        for path in gone:
            del self._known[path]
        if not paths and not gone and folder in self._compared:
            return {}
        self._compared.add(folder)
        dataset = folder.split("/", 1)[0]
        kept = self._kept.read(dataset)
        data = {path: kept[path].data for path in paths if path in kept and FileState(*kept[path][1:3]) == files[path]}
        to_read = [path for path in paths if path not in data]
        data |= zip(to_read, read_many(to_read), strict=True)
        others = {path: one for path, one in kept.items() if not path.startswith(f"{folder}/")}
        has_more = any(path not in files and path not in others for path in kept)
        if has_more or len(to_read) > _SHARE_READ * len(kept):
            here = {path: kept[path].data for path in files if path in kept} | data
            now = [Kept(path, *files[path], found) for path, found in here.items() if _is_whole(found, files[path])]
            self._kept.write(dataset, [*others.values(), *now])
        return data


def _is_whole(data: bytes, state: FileState) -> bool:
    # A file may go, or become another, after it was listed.
    return len(data) == state.size_bytes and state.version is not None
