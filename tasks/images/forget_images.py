"""Find and remove everything that was made from an image: its faces, features, outputs and predictions."""

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath

import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.challenge.pictures import is_image
from data_contracts.details.datasets import ImageFacesDetails
from data_contracts.errors import InputError, first_names
from data_contracts.files.locations import absolute_location, location
from data_contracts.schemas.faces import IMAGE_FACES
from data_contracts.store.manifest import Failure, Manifest, StoredUnit, UnitKey
from data_contracts.store.store import Store
from data_contracts.vocabulary import normalize_name
from tasks.extract.crop_faces import crop_params_of
from tasks.images.image_faces import fingerprint_of_block
from tasks.images.write_images import images_in, remove_images
from tasks.results.forget import find_reports, remove_report
from tasks.units import Product, write_product

_OF_BLOCKS = ("image_outputs", "image_features")


@dataclass(frozen=True)
class ImageTraces:
    """Everything that was made from one image.

    Attributes:
        image: its path or URL.
        blocks: units of ``image_faces`` with the image; its rows are removed from them.
        derived: units of features and outputs of these blocks; they are removed, and the next run computes them again
            from the stored faces of the other images.
        folders: folders of predictions with rows of the image.
        unread: folders of predictions with a table of images that cannot be read and may name it; it is removed.
        reports: report pages and accounts of inputs that name the image.
    """

    image: str
    blocks: list[StoredUnit]
    derived: list[StoredUnit]
    folders: list[Store]
    unread: list[Store]
    reports: list[str]


def known_images(store: Store, folders: Sequence[Store]) -> set[str]:
    """Return the paths of all images with faces in a store or rows in a folder of predictions."""
    manifests = store.manifests("image_faces").values()
    stored = {one.path for manifest in manifests for one in ImageFacesDetails.of(manifest).images}
    failed = {file for note in _failures(store).values() for file in note.files if is_image(location(file))}
    return stored.union(failed, *(images_in(folder) or () for folder in folders))


def resolve_image(given: str, images: Collection[str]) -> str | None:
    """Return the known image that a user means by a path, a URL or the name of the file; None if there is none.

    Names are compared in the Unicode form NFC.

    Raises:
        InputError: several images have this name.
    """
    place = str(absolute_location(given))
    if place in images:
        return place
    name = normalize_name(given)
    matches = sorted(image for image in images if normalize_name(PurePath(image).name) == name)
    if len(matches) > 1:
        raise InputError(
            f"{given}: expected one image of this name, found {len(matches)} ({first_names(matches)}); pass the path"
        )
    return matches[0] if matches else None


def find_image_traces(store: Store, image: str, folders: Sequence[Store]) -> ImageTraces:
    """Find everything that was made from an image."""
    blocks = [
        StoredUnit(key, manifest)
        for key, manifest in store.manifests("image_faces").items()
        if any(one.path == image for one in ImageFacesDetails.of(manifest).images)
    ]
    names = {key.value("block") for key, _ in blocks}
    derived = [
        StoredUnit(key, manifest)
        for dataset in _OF_BLOCKS
        for key, manifest in store.manifests(dataset).items()
        if key.value("block") in names
    ]
    tables = [(folder, images_in(folder)) for folder in folders]
    with_rows = [folder for folder, found in tables if found and image in found]
    unread = [folder for folder, found in tables if found is None]
    return ImageTraces(image, blocks, derived, with_rows, unread, find_reports(store, [PurePath(image).name]))


def remove_image(store: Store, traces: ImageTraces) -> None:
    """Remove everything that was found; the rows of its faces last, so that an interrupted call can be repeated.

    Raises:
        StoreError, OSError: something cannot be removed.
    """
    for folder in (*traces.folders, *traces.unread):
        remove_images(folder, [traces.image])
    for path in traces.reports:
        remove_report(store, path)
    store.remove_from_indexes([key.value("block") for key, _ in traces.blocks], labels=())
    for key, note in _failures(store).items():
        if traces.image in note.files:
            store.remove(key.failure_path)
    for unit in traces.derived:
        store.remove_unit(*unit)
    for key, manifest in traces.blocks:
        _remove_rows(store, key, manifest, traces.image)


def _failures(store: Store) -> dict[UnitKey, Failure]:
    return {key: note for dataset in ("image_faces", *_OF_BLOCKS) for key, note in store.failures(dataset).items()}


def _remove_rows(store: Store, key: UnitKey, manifest: Manifest, image: str) -> None:
    """Write a block without an image, with the fingerprint of a block of the others; remove it if there is none."""
    details = ImageFacesDetails.of(manifest)
    others = tuple(one for one in details.images if one.path != image)
    if not others:
        store.remove_unit(key, manifest)
        return
    batches = store.iter_unit(key, manifest)
    tables = (pa.Table.from_batches([b]).filter(pc.not_equal(b["image"], image)) for b in batches)
    named = store.read_unit(key, manifest, columns=["image", "status"])
    lost = named.filter(pc.equal(named["image"], image))["status"].to_pylist()
    product = Product(IMAGE_FACES, tables, details=replace(details, images=others, problems=()))
    product.counts.update(manifest.counts)
    product.counts.subtract(lost)
    product.problems = [line for line in details.problems if not line.startswith(f"{image}:")]
    unit_fingerprint = fingerprint_of_block(others, crop_params_of(details.crop_params))
    write_product(store, key, product, fingerprint=unit_fingerprint, started=time.monotonic())
    store.remove(f"{key.folder}/{manifest.part}")
