"""The settings of affwild2: every ``AFFWILD2_...`` environment variable that the program reads.

``docs/operations.md`` lists them in a table. A plain dataclass: importing pydantic-settings would take 0.4 s in every
command and worker.
"""

import functools
import math
import os
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal, cast, get_args

from data_contracts.errors import InputError
from data_contracts.vocabulary import MAX_FRAME

Engine = Literal["openvino", "torch"]

CACHE = "AFFWILD2_CACHE"
ENGINE = "AFFWILD2_ENGINE"
TIMEOUT = "AFFWILD2_PATIENCE_SECONDS"
VIDEO_LIMITS = "AFFWILD2_VIDEO_LIMITS"
WEIGHTS_URL = "AFFWILD2_WEIGHTS_URL"
_VARIABLES = (CACHE, ENGINE, TIMEOUT, VIDEO_LIMITS, WEIGHTS_URL)


@dataclass(frozen=True)
class VideoLimits:
    """Maximum size of one video (``AFFWILD2_VIDEO_LIMITS``, for example ``hours=24,pixels=2e8``).

    Attributes:
        pixels: per frame; the default is twice 8K.
        frames: the default is 12 hours at 115 frames per second.
        hours: from the first to the last time stamp.
        gigabytes: file size; the default is 12 hours at 47 Mbit/s.
    """

    pixels: float = 2 * 7680 * 4320
    frames: float = MAX_FRAME
    hours: float = 12
    gigabytes: float = 256


@dataclass(frozen=True)
class Settings:
    """Values of all settings.

    Attributes:
        cache: folder for downloaded weights and converted networks (``AFFWILD2_CACHE``); None: the user's cache folder.
        engine: engine that runs networks on a CPU (``AFFWILD2_ENGINE``); None: OpenVINO if it is installed.
        s3_timeout_seconds: how long a failing S3 request is retried (``AFFWILD2_PATIENCE_SECONDS``).
        cluster_timeout_seconds: how long a run waits for a lost scheduler or for workers (the same variable).
        video_limits: maximum size of one video (``AFFWILD2_VIDEO_LIMITS``).
        weights_url: mirror of the published weights (``AFFWILD2_WEIGHTS_URL``); None: their repositories.
    """

    cache: Path | None = None
    engine: Engine | None = None
    s3_timeout_seconds: float = 120.0
    cluster_timeout_seconds: float = 300.0
    video_limits: VideoLimits = field(default_factory=VideoLimits)
    weights_url: str | None = None

    @property
    def cache_folder(self) -> Path:
        """The folder for downloaded weights and converted networks."""
        if self.cache is not None:
            return self.cache
        import platformdirs

        return platformdirs.user_cache_path("affwild2")


def read_settings() -> Settings:
    """Return the settings of this process. A variable that is empty has its default.

    The values are parsed once; they are parsed again only if a variable has changed since.

    Raises:
        InputError: a variable has an invalid value.
    """
    return _parse(*(os.environ.get(name, "") for name in _VARIABLES))


@functools.lru_cache(maxsize=1)
def _parse(cache: str, engine: str, timeout: str, limits: str, weights_url: str) -> Settings:
    defaults, seconds = Settings(), _parse_timeout(timeout)
    return Settings(
        cache=Path(cache) if cache else None,
        engine=_parse_engine(engine),
        s3_timeout_seconds=seconds or defaults.s3_timeout_seconds,
        cluster_timeout_seconds=seconds or defaults.cluster_timeout_seconds,
        video_limits=_parse_video_limits(limits),
        weights_url=_parse_url(weights_url),
    )


def _parse_engine(text: str) -> Engine | None:
    names = get_args(Engine)
    if text and text not in names:
        raise InputError(f"{ENGINE}: expected one of {', '.join(names)}, got {text!r}")
    return cast(Engine | None, text or None)


def _parse_timeout(text: str) -> float | None:
    if not text:
        return None
    seconds = _positive_number(text)
    if seconds is None:
        raise InputError(f"{TIMEOUT}: expected a number of seconds above 0, got {text!r}")
    return seconds


def _parse_video_limits(text: str) -> VideoLimits:
    names = [field.name for field in fields(VideoLimits)]
    values: dict[str, float] = {}
    for part in filter(None, text.split(",")):
        name, _, number = part.strip().partition("=")
        value = _positive_number(number)
        if name not in names or value is None:
            raise InputError(
                f"{VIDEO_LIMITS}: expected numbers above 0 for {', '.join(names)}, such as hours=24, got {part!r}"
            )
        values[name] = value
    return VideoLimits(**values)


def _parse_url(text: str) -> str | None:
    if text and not text.startswith(("http://", "https://")):
        raise InputError(f"{WEIGHTS_URL}: expected a URL with http:// or https://, got {text!r}")
    return text.rstrip("/") or None


def _positive_number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if 0 < number < math.inf else None
