"""Score videos from Python: the command ``affwild2 score`` in a process of its own."""

import contextlib
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from affwild2.predictions import Predictions
from data_contracts.errors import InputError
from data_contracts.settings import LOG_FORMAT

_SOME_FAILED = 1
_WRONG_REQUEST = 2
_PREFIX = "affwild2: "


def score(
    videos: str | Path | Iterable[str | Path],
    *,
    out: str | Path,
    store: str | Path | None = None,
    head: str | Sequence[str] | None = None,
    backbone: str | None = None,
    people: Literal["main", "all"] | None = None,
    options: Sequence[str] = (),
) -> Predictions:
    """Predict every frame of videos, and every face of images, and return the predictions.

    It runs ``affwild2 score`` in another process, which uses all cores and leaves no memory behind. Progress is written
    to standard error, which notebooks show. Interrupt the kernel to stop it; the same call continues.

    Args:
        videos: files and folders of videos and images: paths or ``s3://`` URLs.
        out: folder for the predictions.
        store: store to read heads from and write features to; None: ``OUT/store``.
        head: names of heads, or their beginnings; None: the only head of each task.
        backbone: network to compute features with; None: that of the heads, or the bundled one.
        people: ``"all"`` (the default), or ``"main"``: only the person who is seen most.
        options: further options of the command, such as ``["--annotate", "--missing-faces", "interpolate"]``.

    Raises:
        InputError: the request is wrong, or no video could be scored, with the message of the command.
        RuntimeError: the command ended unexpectedly.

    Warns:
        UserWarning: some videos could not be scored or were used in part; the rest is complete.
    """
    named = {"--store": store, "--backbone": backbone, "--people": people}
    heads = [head] if isinstance(head, str) else list(head or ())
    places = [videos] if isinstance(videos, str | Path) else list(videos)
    command = [sys.executable, "-m", "flows.commands.command_line", "score", "--out", str(out)]
    command += [word for name, value in named.items() if value is not None for word in (name, str(value))]
    command += [word for one in heads for word in ("--head", one)]
    code, last = _run([*command, *options, "--", *map(str, places)])
    if code == _WRONG_REQUEST:
        raise InputError(last)
    if code not in (0, _SOME_FAILED):
        raise RuntimeError(f"affwild2 score ended with code {code}: {last}")
    try:
        predictions = Predictions(out)
    except InputError as error:
        # The command says why there is none.
        raise InputError(last) if code else error from None
    if code:
        warnings.warn(last, stacklevel=2)
    return predictions


def _run(command: Sequence[str]) -> tuple[int, str]:
    """Run a command, and pass on its progress. Return its exit code and its last message."""
    last = ""
    # The messages of JSON logs have another form.
    environment = {name: value for name, value in os.environ.items() if name != LOG_FORMAT}
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            assert process.stderr is not None
            for line in process.stderr:
                if line.startswith(_PREFIX):
                    last = line.removeprefix(_PREFIX).strip()
                else:
                    print(line, end="", file=sys.stderr, flush=True)
            return process.wait(), last
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
            raise
