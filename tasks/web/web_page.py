"""Write the web page that runs a backbone in a browser: a folder that any web server serves, without other parts."""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path

from data_contracts.vocabulary import DIMENSIONS, EXPRESSIONS
from models.backbones.network import Backbone
from models.faces.detection import (
    CELL_PX,
    FINAL_NMS_IOMIN,
    LEVEL_NMS_IOU,
    MERGED_NMS_IOU,
    STRIDE_PX,
)
from models.heads.mlp import zero_shot_heads
from models.weight_files.export import export_backbone, export_detector
from models.weight_files.licences import COMMERCIAL_MEANING, DETECTOR, LICENCES, OF_FILE, Licence
from tasks.extract.crop_faces import CropParams
from tasks.palette import EXPRESSION_COLOURS
from tasks.web.npm_package import locked_package, read_package

_RUNTIME = "onnxruntime"
_LOADER, _WASM = "dist/ort.wasm.bundle.min.mjs", "dist/ort-wasm-simd-threaded.wasm"
# Some web servers do not know the suffix .mjs, and browsers then refuse the file.
_LOADER_NAME, _SERVED_LOADER_NAME = "ort.wasm.bundle.min.mjs", "ort.wasm.bundle.min.js"
# Read by the service worker itself, which no cache may keep.
_NOT_KEPT = ("service_worker.js", "files.js")


@dataclass(frozen=True)
class WebPage:
    """A written page: its folder, and the size of its files in 10^6 bytes; and the backbone's ONNX file in it."""

    folder: Path
    megabytes: float
    network: Path


def write_web_page(backbone: Backbone, out: Path, *, name: str, is_own_file: bool) -> WebPage:
    """Write the page of a backbone into a folder, over an earlier page. Other files stay.

    ``is_own_file``: the weights are a file of the user, whose licence is not known.

    Raises:
        ValueError: the backbone has no outputs for expressions, valence and arousal, or the extra is not installed.
        InputError: the package of npm cannot be downloaded.
    """
    spec = backbone.spec
    zero_shot_heads(spec.class_names, spec.embedding_size)
    package = locked_package("onnxruntime-web")
    runtime = read_package(package, (_LOADER, _WASM))
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".unfinished-") as scratch_name:
        scratch = Path(scratch_name)
        _copy_sources(scratch)
        (scratch / _RUNTIME).mkdir()
        # Its threads load it by this name.
        loader = runtime[_LOADER].replace(_LOADER_NAME.encode(), _SERVED_LOADER_NAME.encode())
        (scratch / _RUNTIME / _SERVED_LOADER_NAME).write_bytes(loader)
        wasm = scratch / _RUNTIME / Path(_WASM).name
        wasm.write_bytes(runtime[_WASM])
        networks = export_detector(scratch / "networks")
        networks["backbone"] = export_backbone(backbone, "onnx", scratch / "networks")
        settings = _settings(backbone, name, LICENCES.get(name, OF_FILE) if not is_own_file else OF_FILE)
        settings["networks"] = {kind: _described(path, scratch) for kind, path in networks.items()}
        settings["runtime"] = _described(wasm, scratch)
        settings["total_bytes"] = sum(path.stat().st_size for path in (wasm, *networks.values()))
        (scratch / "settings.json").write_text(json.dumps(settings, indent=1) + "\n")
        _write_file_list(scratch)
        return WebPage(out, _replace(scratch, out) / 1e6, out / networks["backbone"].relative_to(scratch))


def _copy_sources(folder: Path) -> None:
    pages = resources.files("tasks.pages"), resources.files("tasks.web") / "page"
    for file in (pages[0] / "page.css", *pages[1].iterdir()):
        (folder / file.name).write_bytes(file.read_bytes())


def _settings(backbone: Backbone, name: str, licence: Licence) -> dict[str, object]:
    """Return what the scripts of the page read, as JSON values."""
    spec, params = backbone.spec, CropParams()
    outputs = {output: number for number, output in enumerate(spec.class_names)}
    known = [expression for expression in EXPRESSIONS if expression in outputs]
    expressions = [{"name": one, "output": outputs[one], "colour": EXPRESSION_COLOURS[one]} for one in known]
    meanings = COMMERCIAL_MEANING | {"see file": "as stated for the weights that this page was made with"}
    used = {name: licence, DETECTOR: LICENCES[DETECTOR]}
    return {
        "backbone": {
            "name": name,
            "input_px": spec.input_px,
            "interpolation": spec.interpolation,
            "max_side_px": params.max_side_px,
            # As the heads that score uses without a fitted head.
            "expressions": expressions if len(known) > 1 else [],
            "affect": {one: outputs[one] for one in DIMENSIONS} if set(DIMENSIONS) <= outputs.keys() else None,
        },
        "detector": asdict(params.detector)
        | {
            "cell_px": CELL_PX,
            "stride_px": STRIDE_PX,
            "level_nms_iou": LEVEL_NMS_IOU,
            "merged_nms_iou": MERGED_NMS_IOU,
            "final_nms_iomin": FINAL_NMS_IOMIN,
        },
        "licences": [[who, one.weights, ", ".join(one.data), one.commercial] for who, one in used.items()],
        "notes": [f"{answer}: {meanings[answer]}" for answer in dict.fromkeys(one.commercial for one in used.values())],
    }


def _described(path: Path, folder: Path) -> dict[str, object]:
    return {"path": path.relative_to(folder).as_posix(), "bytes": path.stat().st_size}


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _write_file_list(folder: Path) -> None:
    """Write the names of all files for the service worker, and their version: a digest of their contents."""
    digest, names = hashlib.sha256(), []
    for path in _files(folder):
        digest.update(path.read_bytes())
        names.append(path.relative_to(folder).as_posix())
    kept = ["./", *(name for name in names if name not in _NOT_KEPT)]
    text = f'const VERSION = "{digest.hexdigest()[:16]}";\nconst FILES = {json.dumps(kept, indent=1)};\n'
    (folder / "files.js").write_text(text)


def _replace(scratch: Path, out: Path) -> int:
    """Move the files of a page over those of an earlier one; return their size in bytes."""
    size = 0
    for path in _networks_in(out):
        path.unlink(missing_ok=True)
    for path in _files(scratch):
        target = out / path.relative_to(scratch)
        target.parent.mkdir(exist_ok=True)
        size += path.stat().st_size
        os.replace(path, target)
    return size


def _networks_in(page: Path) -> list[Path]:
    """Return the networks of an earlier page in a folder: those of another backbone have other names."""
    try:
        named = json.loads((page / "settings.json").read_text())["networks"].values()
        names = [Path(one["path"]).name for one in named]
        return [page / "networks" / f"{name}{end}" for name in names for end in ("", ".preprocessing.json")]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return []
