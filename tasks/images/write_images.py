"""Write the predictions for images: a table for a folder, with a row per face."""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_contracts.details.heads import HeadDetails
from data_contracts.errors import InputError, StoreError
from data_contracts.schemas.dataset import check_schema
from data_contracts.schemas.faces import BOX_NAMES, LANDMARK_COLUMNS
from data_contracts.schemas.predictions import IMAGES
from data_contracts.store.fingerprint import fingerprint
from data_contracts.store.manifest import Manifest, StoredUnit, UnitKey
from data_contracts.store.store import Store
from data_contracts.vocabulary import BRANCHES_OF_TASK, FACE_FOUND
from models.decisions.postprocessing import PostProcessing
from models.decisions.smoothing import Smoothing
from models.decisions.subject_outputs import SubjectOutputs
from tasks.fit.head_selection import ServingHead
from tasks.fit.predict_outputs import to_backbone, to_outputs
from tasks.fit.stored_heads import rule_of
from tasks.results.prediction_folder import IMAGES_TABLE, note_folder, replace_table
from tasks.results.write_predictions import decision_columns, fingerprint_head

CODE_VERSION = 1
_FILE = f"{IMAGES_TABLE}.parquet"
# In the metadata of the table: image -> digits of the heads, and hash of what its rows were made from, as JSON.
_MADE_FROM = b"made_from"
_KEY = ["image", "face"]


@dataclass(frozen=True)
class ImageBlock:
    """The images of a block that are predicted, its faces, and the outputs of each head."""

    images: tuple[str, ...]
    faces: StoredUnit
    outputs: tuple[tuple[ServingHead, UnitKey, Manifest], ...]

    @property
    def fingerprint(self) -> str:
        """Hash of everything that the rows depend on, besides the image."""
        outputs = [manifest.fingerprint for _, _, manifest in self.outputs]
        return f"{self.settings}-{fingerprint(version=CODE_VERSION, outputs=outputs)}"

    @property
    def settings(self) -> str:
        """Digits that differ between heads, and between their post-processings."""
        return fingerprint(version=CODE_VERSION, heads=[fingerprint_head(one) for one, _, _ in self.outputs])[:8]


@dataclass(frozen=True)
class WrittenImages:
    """Paths of images by result, and the number of faces in all of them.

    Attributes:
        unreadable: images that cannot be read, or not as they were when their faces were found.
        other_heads: images in the same table that were not requested, with predictions of other heads.
        replaces_damaged: the table could not be read, so that rows of images that were not requested are lost.
    """

    scored: tuple[str, ...] = ()
    up_to_date: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    other_heads: tuple[str, ...] = ()
    faces: int = 0
    replaces_damaged: bool = False


def write_images(store: Store, target: Store, blocks: Sequence[ImageBlock]) -> tuple[WrittenImages, dict[str, str]]:
    """Write the rows of these images into ``tables/images.parquet`` and ``.csv`` of a folder.

    Rows of other images stay. Files are written only if a row has changed.

    Returns:
        What was written, and the damaged blocks (name -> cause), whose images keep their rows.

    Raises:
        StoreError: the folder cannot be written to.
    """
    found = _read(target)
    before, known = found or (IMAGES.schema.empty_table(), {})
    rules = {one.head.name: _unsmoothed(store, one) for block in blocks for one, _, _ in block.outputs}
    fingerprints, unreadable, damaged = dict[str, str](), set[str](), dict[str, str]()
    tables = [IMAGES.schema.empty_table()]
    for block in blocks:
        try:
            table, without_outputs = _table(store, block, rules)
        except StoreError:
            raise
        except InputError as error:
            damaged[block.faces[0].value("block")] = str(error)
            continue
        tables.append(table)
        unreadable |= without_outputs
        fingerprints |= dict.fromkeys(block.images, block.fingerprint)
    scored = {image for image, made in fingerprints.items() if known.get(image) != made}
    requested = pa.concat_tables(tables)
    unreadable.update(requested.filter(pc.is_null(requested["width_px"]))["image"].to_pylist())
    if scored:
        note_folder(store, target)
        kept = before.filter(pc.invert(pc.is_in(before["image"], pa.array(list(fingerprints), pa.string()))))
        rows = pa.concat_tables([kept, requested]).sort_by([("image", "ascending"), ("face", "ascending")])
        _write(target, rows, known | fingerprints)
    settings = {block.settings for block in blocks}

    def is_other(image: str, made: str) -> bool:
        return bool(settings) and image not in fingerprints and made.split("-")[0] not in settings

    written = WrittenImages(
        scored=tuple(sorted(scored - unreadable)),
        up_to_date=tuple(sorted(set(fingerprints) - scored - unreadable)),
        unreadable=tuple(sorted(unreadable)),
        other_heads=tuple(sorted(image for image, made in known.items() if is_other(image, made))),
        faces=requested.num_rows - requested["face"].null_count,
        replaces_damaged=found is None and bool(scored),
    )
    return written, damaged


def images_in(target: Store) -> set[str] | None:
    """Return the images that a folder has rows of; None if its table cannot be read."""
    found = _read(target)
    # Programs that edit the table may lose its metadata.
    return None if found is None else found[1].keys() | set(found[0]["image"].to_pylist())


def has_images(target: Store) -> bool:
    """Return whether a folder has a table of images, or one that cannot be read."""
    return images_in(target) != set()


def remove_images(target: Store, images: Sequence[str]) -> None:
    """Remove the rows of images from the table of a folder; the whole table if it cannot be read."""
    found = _read(target)
    if found is None:
        replace_table(target, IMAGES_TABLE, IMAGES.schema.empty_table())
    elif not (images_in(target) or set()).isdisjoint(images):
        table, known = found
        rows = table.filter(pc.invert(pc.is_in(table["image"], pa.array(images, pa.string()))))
        _write(target, rows, {image: made for image, made in known.items() if image not in images})


def _unsmoothed(store: Store, serving: ServingHead) -> PostProcessing:
    """Return the thresholds and the class bias of a head without its smoothing: images have no order in time."""
    return rule_of(store, serving).with_smoothing(Smoothing())


def _table(store: Store, block: ImageBlock, rules: Mapping[str, PostProcessing]) -> tuple[pa.Table, set[str]]:
    """Return the rows of a block, and the images with a face that a head has no outputs of."""
    names = [field.name for field in store.schema_of(*block.faces) if field.name != "crop_jpeg"]
    faces = store.read_unit(*block.faces, columns=names)
    faces = faces.filter(pc.is_in(faces["image"], pa.array(block.images, pa.string()))).combine_chunks()
    columns = {name: faces[name] for name in (*_KEY, "width_px", "height_px", "probability", *BOX_NAMES)}
    found = pc.equal(faces["status"], FACE_FOUND).combine_chunks().to_numpy(zero_copy_only=False)
    columns |= _landmark_columns(faces["landmarks_xy_px"], found)
    width = pc.subtract(faces["box_x2_px"], faces["box_x1_px"])
    height = pc.subtract(faces["box_y2_px"], faces["box_y1_px"])
    columns["face_size_px"] = pc.sqrt(pc.multiply(width, height))
    is_predicted = np.ones(len(found), bool)
    for serving, key, manifest in block.outputs:
        rule, branches = rules[serving.head.name], BRANCHES_OF_TASK[HeadDetails.of(serving.head).task]
        table = _rows_of_faces(store.read_unit(key, manifest), faces)
        outputs, backbone = to_outputs(table, branches), to_backbone(table) if rule.has_gate else None
        known = table["image"].is_valid().to_numpy()
        is_predicted &= known | ~found
        of_faces = SubjectOutputs("faces", outputs, known, backbone=backbone)
        columns |= decision_columns(rule, of_faces, serving.branches)
    columns |= {name: pa.nulls(len(found)) for name in IMAGES.schema.names if name not in columns}
    return check_schema(pa.table(columns), IMAGES), set(faces["image"].filter(pa.array(~is_predicted)).to_pylist())


def _landmark_columns(landmarks: pa.ChunkedArray, found: np.ndarray) -> dict[str, pa.Array]:
    values = np.full((len(found), len(LANDMARK_COLUMNS)), np.nan, np.float32)
    if found.any():
        values[found] = np.array(landmarks.drop_null().to_pylist(), np.float32)
    return {one.name: pa.array(values[:, i], from_pandas=True) for i, one in enumerate(LANDMARK_COLUMNS)}


def _rows_of_faces(table: pa.Table, faces: pa.Table) -> pa.Table:
    """Return the row of outputs for each row of ``faces``; nulls where there is none."""
    row_of = {key: row for row, key in enumerate(_keys(table))}
    return table.take(pa.array([row_of.get(key) for key in _keys(faces)], pa.int64()))


def _keys(table: pa.Table) -> list[tuple[str, int]]:
    return list(zip(*(table[name].to_pylist() for name in _KEY), strict=True))


def _read(target: Store) -> tuple[pa.Table, dict[str, str]] | None:
    """Return the table of a folder, without rows if there is none, and what the rows of each image were made from.

    None: it was damaged, or written by another version.
    """
    data = target.files.read_many([_FILE])[0]
    try:
        table = pq.read_table(io.BytesIO(data)) if data else IMAGES.schema.empty_table()
        known = json.loads((table.schema.metadata or {}).get(_MADE_FROM, b"{}"))
        return check_schema(table, IMAGES), known
    except (pa.ArrowException, OSError, ValueError):
        # Arrow reports damaged pages as an OSError.
        return None


def _write(target: Store, table: pa.Table, fingerprints: Mapping[str, str]) -> None:
    metadata = {**(IMAGES.schema.metadata or {}), _MADE_FROM: json.dumps(fingerprints).encode()}
    replace_table(target, IMAGES_TABLE, table.replace_schema_metadata(metadata))
