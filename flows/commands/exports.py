"""``affwild2 models export`` and ``heads export``: write networks for devices, and compare them with the originals."""

import shlex
from pathlib import Path
from typing import cast

import numpy as np

from data_contracts.challenge.pictures import PICTURE_SUFFIXES
from data_contracts.details.heads import HeadDetails
from data_contracts.errors import InputError
from data_contracts.files.local import check_output_folder
from data_contracts.store.contents import require_store
from data_contracts.store.store import Store
from flows.commands.parameters import ExportHeadParameters, ExportModelParameters
from flows.engine.console import print_line, print_table
from models.backbones.network import Backbone, load_backbone
from models.decisions.blending import BlendedHead
from models.weight_files.export import FORMATS, ExportFormat, compare_export, export_backbone
from models.weight_files.head_export import export_head, largest_difference
from tasks.backbones import BackboneChoice
from tasks.demo.scenes import load_portraits
from tasks.fit.head_selection import find_head
from tasks.fit.stored_heads import open_head
from tasks.pretrain.crop_pictures import read_photo
from tasks.web.web_page import write_web_page

_MOST_PICTURES = 256
_WEB = "web"


def export_models(parameters: ExportModelParameters) -> int:
    """Write each format, compare the files with the original on pictures of faces, and print the result."""
    name, weights = parameters.name, parameters.weights
    check_output_folder(parameters.out)
    choice = BackboneChoice.find(name, weights)
    wanted: list[str] = list(dict.fromkeys(parameters.formats or FORMATS))
    faces, description = _faces(parameters.pictures) if wanted != [_WEB] else ([], "")
    try:
        backbone = load_backbone(name, weights=Path(choice.weights) if choice.weights else None)
        rows = [_row(backbone, cast(ExportFormat, one), parameters.out, faces) for one in wanted if one != _WEB]
        if _WEB in wanted:
            _export_web(backbone, parameters)
    except ValueError as error:
        raise InputError(str(error)) from error
    if rows:
        header = ["format", "file", "MB", "ms per face", "times torch", "cosine min", "cosine median", "same class"]
        title = f"{name}, one thread, compared on half of {description}, calibrated on the other half"
        print_table(title, header, rows, is_result=True)
        print_line("the .preprocessing.json file next to each file describes its input")
    return 0


def _export_web(backbone: Backbone, parameters: ExportModelParameters) -> None:
    out = parameters.out
    page = write_web_page(backbone, out, name=parameters.name, is_own_file=parameters.weights is not None)
    print_line(f"page: {out} ({page.megabytes:.1f} MB)", is_result=True)
    print_line("serve it with any web server over https, which phones require for the camera")
    print_line(
        f"try it here: python3 -m http.server --bind 127.0.0.1 --directory {shlex.quote(str(out))}, then open "
        "http://127.0.0.1:8000"
    )


def export_heads(parameters: ExportHeadParameters) -> int:
    """Write a head of a store as ONNX, and compare its outputs with the head's on random features."""
    check_output_folder(parameters.out)
    store = Store(parameters.store)
    store.check_reachable()
    require_store(store)
    bundle = find_head(store, parameters.name)
    head = open_head(store, bundle)
    if isinstance(head, BlendedHead):
        names = ", ".join(member.head for member in HeadDetails.of(bundle).members)
        raise InputError(
            f"head {bundle.name}: expected a head with its own network, got a blend; export its members ({names}) "
            "instead"
        )
    try:
        path = export_head(head, bundle.name, parameters.out)
        difference = largest_difference(head, path)
    except ValueError as error:
        raise InputError(f"head {bundle.name}: {error}") from error
    print_line(f"{path}: outputs differ by at most {difference:.1e} from the head's on random features", is_result=True)
    print_line(f"{path}.json describes its inputs and outputs")
    return 0


def _row(backbone: Backbone, wanted: ExportFormat, out: Path, faces: list[np.ndarray]) -> list[object]:
    # Calibrate on every second picture and compare on the others. A single picture is used for both.
    path = export_backbone(backbone, wanted, out, calibration=faces[::2])
    found = compare_export(backbone, path, faces[1::2] or faces)
    return [
        wanted,
        str(path),
        round(found.megabytes, 1),
        round(found.milliseconds, 1),
        f"{found.original_milliseconds / found.milliseconds:.1f}x",
        f"{found.cosine_min:.4f}",
        f"{found.cosine_median:.4f}",
        f"{found.same_class:.0%}",
    ]


def _faces(folder: Path | None) -> tuple[list[np.ndarray], str]:
    """Return pictures of faces, and a description of them."""
    if folder is None:
        portraits = load_portraits()
        # Shift and mirror the two portraits to get more pictures.
        found = [p[s : p.shape[0] - s, s : p.shape[1] - s] for p in portraits for s in range(0, 40, 5)]
        return [*found, *(np.ascontiguousarray(p[:, ::-1]) for p in found)], "32 views of two portraits"
    if not folder.is_dir():
        what = "a file" if folder.exists() else "nothing there"
        raise InputError(f"{folder}: expected a folder with pictures of faces, found {what}")
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURE_SUFFIXES)[:_MOST_PICTURES]
    if not files:
        raise InputError(f"{folder}: expected pictures of faces ({', '.join(sorted(PICTURE_SUFFIXES))}), found none")
    try:
        return [read_photo(path) for path in files], f"{len(files)} pictures of {folder}"
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: expected pictures of faces, got: {error}") from error
