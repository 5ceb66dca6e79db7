"""``affwild2 download``: copy a submission from a store to this machine and verify it with its manifest."""

import contextlib
import hashlib
import io
from pathlib import Path

from data_contracts.details.submissions import SubmissionDetails
from data_contracts.errors import InputError, StoreError, counted
from data_contracts.files.archives import fault_of_zip
from data_contracts.files.local import UNFINISHED, replacing_file
from data_contracts.store.bundles import Bundle, read_file, read_manifest, written_at
from data_contracts.store.contents import require_store
from data_contracts.store.store import Store
from flows.commands.parameters import DownloadSubmissionParameters
from flows.engine.console import print_line

_KIND = "submissions"
LATEST = "latest"


def download_submission(parameters: DownloadSubmissionParameters) -> int:
    """Write the zip of one submission to a folder as ``NAME.zip``, complete or not at all.

    Raises:
        InputError: there is no such submission, its zip does not match the hash in its manifest, or the folder is not
            writable.
    """
    to = parameters.to
    if "://" in to:
        raise InputError(f"--to: expected a folder on this machine, got {to!r}")
    store, folder = Store(parameters.store), Path(to).expanduser().absolute()
    store.check_reachable()
    require_store(store)
    bundle = _find(store, parameters.run)
    zip_name = SubmissionDetails.of(bundle).zip
    data, digest = _read_verified(store, bundle, zip_name), bundle.files[zip_name]
    place = folder / f"{bundle.name}.zip"
    summary = f"{place}: {counted(len(data), 'byte')}, sha256 {digest}"
    if not place.exists():
        _write(place, data)
        print_line(summary, is_result=True)
    elif place.is_file() and place.read_bytes() == data:
        print_line(f"{summary}; existed already", is_result=True)
    else:
        _write(place, data)
        print_line(f"{summary}; replaced an existing file with different content", is_result=True)
    return 0


def _write(place: Path, data: bytes) -> None:
    unfinished = place.parent / UNFINISHED
    try:
        with replacing_file(str(place), unfinished=str(unfinished)) as file:
            file.write(data)
    except OSError as error:
        raise _not_writable(place, error) from error
    except StoreError as error:
        raise _not_writable(place, error.__cause__) from error
    finally:
        # Another process may be writing to the same folder.
        with contextlib.suppress(OSError):
            unfinished.rmdir()


def _not_writable(place: Path, cause: BaseException | None) -> InputError:
    what = getattr(cause, "strerror", None) or str(cause)
    return InputError(f"--to: expected a writable folder with free space, got {place.parent}: {what}")


def _find(store: Store, run: str) -> Bundle:
    found = {name: read_manifest(store, f"{_KIND}/{name}") for name in store.list_folder(_KIND)}
    bundles = {name: bundle for name, bundle in found.items() if bundle}
    if not bundles:
        raise InputError(f"{store.url}: expected a store with submissions, found none; run affwild2 submit first")
    if run == LATEST:
        return max(bundles.values(), key=lambda bundle: (written_at(store, bundle), bundle.name))
    matches = [run] if run in bundles else [name for name in bundles if run and name.startswith(run)]
    if len(matches) != 1:
        problem = "several names begin with it" if matches else "no name begins with it"
        raise InputError(
            f"{store.url}: expected the name of a submission or its beginning, got {run!r}: {problem}; submissions: "
            f"{', '.join(matches or bundles)}"
        )
    return bundles[matches[0]]


def _read_verified(store: Store, bundle: Bundle, name: str) -> bytes:
    where = store.locate(f"{bundle.folder}/{name}")
    if name not in bundle.files:
        raise InputError(
            f"{store.locate(bundle.folder)}: expected a manifest that contains the name of the zip; run submit again"
        )
    try:
        data = read_file(store, bundle, name)
    except FileNotFoundError as error:
        raise InputError(
            f"{where}: expected the zip of submission {bundle.name}, found none; run submit again"
        ) from error
    got = hashlib.sha256(data).hexdigest()
    if got != bundle.files[name]:
        cause = fault_of_zip(io.BytesIO(data))
        raise InputError(
            f"{where}: expected sha256 {bundle.files[name]} as in the manifest, got {got} "
            f"({counted(len(data), 'byte')}{f', {cause}' if cause else ''}); run submit again"
        )
    return data
