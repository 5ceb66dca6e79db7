"""Every reader of files from untrusted sources, with valid files to mutate and the function to call."""

import io
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from PIL import ExifTags, Image
from safetensors.torch import save

from data_contracts.challenge.annotations import read_annotations
from data_contracts.challenge.crops import list_crops
from data_contracts.challenge.editions import HEADERS, submission_header
from data_contracts.challenge.layout import find_data, subjects_of_videos
from data_contracts.challenge.submissions import verify_submission
from data_contracts.challenge.test_lists import read_test_list
from data_contracts.schemas.faces import FRAMES
from data_contracts.store.bundles import Bundle
from data_contracts.store.manifest import Failure, Manifest, UnitKey
from data_contracts.store.store import Store
from data_contracts.video.frames import read_segment
from data_contracts.video.packets import index_video
from data_contracts.vocabulary import TaskName
from models.backbones.network import load_backbone
from models.decisions.postprocessing import untuned_postprocessing
from models.decisions.subject_outputs import SubjectOutputs
from models.faces.crops import decode_jpeg, encode_jpeg
from models.heads.head import BranchConfig, HeadConfig, head_from_bytes, head_to_bytes
from models.heads.mlp import MlpHead
from models.heads.sequences import SubjectSequence
from models.weight_files.pickled_tensors import read_pickled_tensors
from tasks.fit.stored_heads import load_postprocessing
from tasks.pretrain.crop_pictures import read_photo
from tasks.units import Product, write_product
from tests.video_factory import VideoSpec, write_video


@dataclass(frozen=True)
class Reader:
    """A reader: name, valid inputs, a function that reads a file, and its relative share of all inputs."""

    name: str
    seeds: tuple[bytes, ...]
    read: Callable[[Path], object]
    suffix: str = ".txt"
    share: float = 1.0


def all_readers(folder: Path) -> list[Reader]:
    """Return all readers; their valid inputs are created in ``folder``."""
    return [
        *_video_readers(folder),
        *_label_readers(),
        Reader("subject list", (b"a\nb_left\nb_right\n40-30-1280x720\n",), read_test_list),
        Reader("sample file", (_sample("expr", "0"), _sample("va", "0.5,-0.5"), _sample("mtl", "")), read_test_list),
        *_submission_readers(),
        *_store_readers(folder),
        Reader("crop", (_jpeg(),), lambda path: decode_jpeg(path.read_bytes()), ".jpg", 2),
        Reader("photo", tuple(_photos()), _read_photo, ".bin", 2),
        *_model_readers(),
        Reader("folder names", (b"videos/a.mp4\ncropped/a_left/00001.jpg\nMTL/train_set.txt\nMTL.txt",), _read_folder),
    ]


def _read_photo(path: Path) -> None:
    try:
        read_photo(path)
    except OSError as error:
        # The stage reports them as it reports a ValueError.
        raise ValueError(str(error)) from error


def _photos() -> Iterator[bytes]:
    grey = np.linspace(0, 65535, 24 * 16).astype(np.uint16).reshape(16, 24)
    color = Image.fromarray((grey >> 8).astype(np.uint8)).convert("RGB")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    for image, kind in (
        *((color, kind) for kind in ("JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP", "PPM")),
        *((Image.fromarray(grey), kind) for kind in ("PNG", "TIFF")),
        (color.convert("CMYK"), "JPEG"),
        (color.convert("RGBA"), "PNG"),
    ):
        file = io.BytesIO()
        image.save(file, kind, **({"exif": exif} if kind in ("JPEG", "PNG", "TIFF", "WEBP") else {}))
        yield file.getvalue()


def _video_readers(folder: Path) -> list[Reader]:
    def read(path: Path) -> None:
        index = index_video(path)
        for _ in read_segment(path, index, first_frame=max(1, index.frame_count // 2), frame_count=4):
            pass

    jpeg = VideoSpec(frame_count=20, codec="mjpeg", b_frames=0, pixel_format="yuvj420p")
    kinds = {
        "mp4": VideoSpec(frame_count=20),
        "mkv": VideoSpec(frame_count=20, b_frames=0),
        "avi": VideoSpec(frame_count=20, codec="mpeg4", b_frames=0),
        "ts": VideoSpec(frame_count=20),
        "mov": replace(jpeg, mirrored=True, aspect=Fraction(4, 3)),
    }
    return [
        Reader(f"video {kind}", (write_video(folder / f"seed.{kind}", spec).read_bytes(),), read, f".{kind}", 2)
        for kind, spec in kinds.items()
    ]


_VALUES: dict[TaskName, str] = {"expr": "3", "va": "0.25,-1", "au": "1,0,-1" + ",0" * 9}


def _label_readers() -> Iterator[Reader]:
    for task, value in _VALUES.items():
        text = "\n".join([HEADERS[task], *([value] * 30)]) + "\n"

        def read(path: Path, task: TaskName = task) -> None:
            place = path.parent / "annotations" / "Train_Set" / "a.txt"
            with _move(path, place):
                read_annotations(place.parent.parent, task=task, set_name="train")

        yield Reader(f"labels {task}", (text.encode(),), read)

    def read_list(path: Path) -> None:
        place = path.parent / "annotations" / "train_set.txt"
        with _move(path, place):
            read_annotations(place.parent, task="mtl", set_name="train")

    yield Reader("labels mtl", (_sample("mtl", "0.1,-0.2,4" + ",1" * 12),), read_list)


@contextmanager
def _move(path: Path, place: Path) -> Iterator[None]:
    place.parent.mkdir(parents=True, exist_ok=True)
    os.replace(path, place)
    yield
    place.unlink()


def _sample(task: TaskName, values: str) -> bytes:
    names = [f"{subject}/{frame:05d}.jpg" for subject in ("a", "b_left") for frame in range(1, 16)]
    return "\n".join([submission_header(task, "frame"), *(f"{name},{values}" for name in names)]).encode() + b"\n"


def _submission_readers() -> Iterator[Reader]:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("a.txt", "b.txt"):
            archive.writestr(name, "\n".join([HEADERS["va"], *(["0.5,0.25"] * 20)]))
    yield Reader("submission zip", (buffer.getvalue(),), verify_submission, ".zip", 2)
    yield Reader("submission text", (_sample("au", "0" + ",1" * 11), _sample("expr", "4")), verify_submission)


def _store_readers(folder: Path) -> Iterator[Reader]:
    store, key = Store(folder / "seed store"), UnitKey("frames", (("video", "a"),))
    count = 50
    table = pa.table(
        {
            "frame": pa.array(range(1, count + 1), pa.int32()),
            "pts": pa.array(range(count), pa.int64()),
            "pts_seconds": pa.array(np.arange(count) / 25),
            "keyframe": pa.array([True] * count),
        }
    )
    manifest = write_product(store, key, Product(FRAMES, [table]), fingerprint="f" * 64, started=0.0)

    def read_manifest(path: Path) -> None:
        Manifest.from_json(path.read_bytes())
        Failure.from_json(path.read_bytes())

    def read_part(path: Path) -> None:
        mine = Store(path.parent / "store")
        place = path.parent / "store" / key.folder / manifest.part
        with _move(path, place):
            found = mine.read_unit(key, replace(manifest, part_bytes=place.stat().st_size))
        # Checksums cover pages but not the footer: rows that are returned must at least be correct.
        assert found["frame"].to_pylist() == list(range(1, count + 1)), "wrong rows were accepted"

    yield Reader("manifest", (store.read_bytes(key.manifest_path),), read_manifest, ".json")
    yield Reader("part", (store.read_bytes(f"{key.folder}/{manifest.part}"),), read_part, ".parquet", 3)


def _jpeg() -> bytes:
    return encode_jpeg(np.random.default_rng(0).integers(0, 255, (40, 30, 3), dtype=np.uint8))


def _model_readers() -> Iterator[Reader]:
    tensors = save({"conv_stem.weight": torch.zeros(4, 3, 3, 3)})
    head = head_to_bytes(_head())

    def read_backbone(path: Path) -> None:
        load_backbone("efficientnet_lite0", weights=path)

    def read_head(name: str) -> Callable[[Path], None]:
        def read(path: Path) -> None:
            found = head_from_bytes(head | {name: path.read_bytes()})
            assert isinstance(found, MlpHead)
            found.predict_sequence(
                SubjectSequence(
                    np.zeros((2, 6), np.float16), np.zeros((2, 3), np.float32), np.ones(2, bool), np.zeros(2)
                )
            )

        return read

    def read_rule(path: Path) -> None:
        os.replace(path, path.parent / "postprocessing.json")
        rule = load_postprocessing(Store(path.parent.parent), Bundle(path.parent.name, "f" * 64))
        SubjectOutputs("a", {"va": np.zeros((9, 2), np.float32)}, np.ones(9, bool)).decide(rule)

    saved = io.BytesIO()
    torch.save(torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)), saved)
    with zipfile.ZipFile(saved) as file:
        parts = {name: file.read(name) for name in file.namelist()}
    (inner,) = (name for name in parts if name.endswith("data.pkl"))

    def read_pickle(path: Path) -> None:
        # The archive has checksums, so that a mutated archive rarely reaches the pickle. Mutate the pickle itself.
        with zipfile.ZipFile(path.with_suffix(".pt"), "w") as file:
            for name, data in (parts | {inner: path.read_bytes()}).items():
                file.writestr(name, data)
        read_pickled_tensors(path.with_suffix(".pt"))

    yield Reader("PyTorch file", (saved.getvalue(),), read_pickled_tensors, ".pt", 0.5)
    yield Reader("PyTorch pickle", (parts[inner],), read_pickle, ".pkl", 2)
    yield Reader("backbone weights", (tensors,), read_backbone, ".safetensors", 0.3)
    yield Reader("head weights", (head["head.safetensors"],), read_head("head.safetensors"), ".safetensors")
    yield Reader("head config", (head["head.json"],), read_head("head.json"), ".json")
    rule = json.dumps({"postprocessing": untuned_postprocessing("va").to_dict()}).encode()
    yield Reader("post-processing", (rule,), read_rule, ".json")


def _head() -> MlpHead:
    config = HeadConfig("va", 6, 3, 1, {"va": BranchConfig("both", 0)})
    tensors = {"seed0.va.0.weight": np.ones((2, 9), np.float32), "seed0.va.0.bias": np.zeros(2, np.float32)}
    return MlpHead(config, tensors)


def _read_folder(path: Path) -> None:
    """Create a folder tree with the names in the lines of the file, if the file system accepts them, and read it."""
    root = path.parent / "tree"
    root.mkdir()
    for line in path.read_bytes().split(b"\n")[:20]:
        parts = [part for part in line.split(b"/") if part not in (b"", b".", b"..") and b"\0" not in part]
        place = os.path.join(os.fsencode(root), *(part[:200] for part in parts))
        try:
            os.makedirs(os.path.dirname(place), exist_ok=True)
            with open(place, "wb") as file:
                file.write(b"image,x\n")
        except OSError:
            continue
    try:
        layout = find_data(root)
        subjects_of_videos(layout)
        for folders in layout.crops.values():
            list_crops(folders)
    finally:
        shutil.rmtree(os.fsencode(root))
