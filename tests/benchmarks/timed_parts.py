"""Timers around the parts of an extraction.

    python timed_parts.py extract ...

This runs the command with this module imported in the process that workers are forked from. After each unit, a worker
writes the processor seconds of its parts to ``PID.json`` in the folder that ``FOLDER_VARIABLE`` names. Time in a part
that another part calls counts for the inner one only. The command writes its own processor seconds to ``command.json``.
"""

import functools
import importlib
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FOLDER_VARIABLE = "TIMED_PARTS_FOLDER"
ROWS, OTHER, COMMAND = "rows in Python and Arrow", "other in workers", "command and scheduler"
# Part -> its functions. Generators count while they compute the next value.
PARTS = {
    "index": ("tasks.extract.index_videos:compute",),
    "decode": ("tasks.extract.crop_faces:read_segment",),
    "detect": ("models.faces.following:FaceFollower.detect", "models.faces.mtcnn_cpu:CpuFaceDetector.detect"),
    "crop": ("tasks.extract.crop_faces:crop_face", "tasks.extract.crop_faces:shrink_to"),
    "JPEG, encode": ("tasks.extract.crop_faces:encode_jpeg",),
    "JPEG, decode": ("tasks.extract.embed_faces:decode_jpeg",),
    "resize": ("models.backbones.cpu:resize_to_square",),
    "network": ("models.backbones.extractor:FeatureExtractor.extract",),
    "Parquet, write": ("data_contracts.store.store:Store.write_unit",),
    "Parquet, read": ("data_contracts.store.store:Store.iter_unit", "data_contracts.store.store:Store.schema_of"),
    ROWS: (
        "tasks.extract.crop_faces:_tables",
        "tasks.extract.crop_faces:_find_faces",
        "tasks.extract.embed_faces:_tables",
        "tasks.extract.embed_faces:_crop_batches",
        "tasks.extract.embed_segments:_find",
        "tasks.extract.embed_segments:embed_crops",
    ),
    "load networks": ("tasks.worker_models:_load_detector", "tasks.worker_models:_load_backbone"),
}
_seconds: Counter[str] = Counter()
_active: list[str] = []
_since = 0.0


@contextmanager
def _timing(part: str) -> Iterator[None]:
    _switch(part)
    try:
        yield
    finally:
        _switch(None)


def _switch(part: str | None) -> None:
    """Enter a part, or leave the current one (None)."""
    global _since
    now = time.thread_time()
    if _active:
        _seconds[_active[-1]] += now - _since
    if part is None:
        _active.pop()
    else:
        _active.append(part)
    _since = now


def _timed(function: Callable[..., Any], part: str) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        with _timing(part):
            result = function(*arguments, **named)
        return _timed_steps(result, part) if isinstance(result, Generator) else result

    return call


def _timed_steps(steps: Generator[Any, None, None], part: str) -> Iterator[Any]:
    try:
        while True:
            with _timing(part):
                try:
                    value = next(steps)
                except StopIteration:
                    return
            yield value
    finally:
        steps.close()


def _reported(run_unit: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(run_unit)
    def call(*arguments: Any, **named: Any) -> Any:
        try:
            return run_unit(*arguments, **named)
        finally:
            seconds = _seconds | Counter({OTHER: time.process_time() - _seconds.total()})
            Path(os.environ[FOLDER_VARIABLE], f"{os.getpid()}.json").write_text(json.dumps(seconds))

    return call


def _replace(function: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    module, _, path = function.partition(":")
    owner: Any = importlib.import_module(module)
    *classes, name = path.split(".")
    for one in classes:
        owner = getattr(owner, one)
    setattr(owner, name, wrap(getattr(owner, name)))


def _run_command() -> None:
    from flows.commands.command_line import main
    from infra.worker_processes import WORKER_MODULES, start_forking

    start_forking((*WORKER_MODULES, Path(__file__).stem))
    try:
        main()
    finally:
        Path(os.environ[FOLDER_VARIABLE], "command.json").write_text(json.dumps({COMMAND: time.process_time()}))


if __name__ == "__main__":
    _run_command()
elif FOLDER_VARIABLE in os.environ:
    for _part, _functions in PARTS.items():
        for _function in _functions:
            _replace(_function, functools.partial(_timed, part=_part))
    _replace("tasks.units:run_unit", _reported)
