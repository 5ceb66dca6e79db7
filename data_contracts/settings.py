"""The settings of affwild2: every ``AFFWILD2_...`` environment variable that the program reads.

``docs/operations.md`` lists them in a table. A plain dataclass: importing pydantic-settings would take 0.4 s in every
command and worker.
"""

import contextlib
import functools
import math
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Literal, cast, get_args
from urllib.parse import urlsplit

from data_contracts.errors import InputError
from data_contracts.vocabulary import MAX_FRAME

Engine = Literal["openvino", "torch"]
LogFormat = Literal["text", "json"]

CACHE = "AFFWILD2_CACHE"
DASK_ADDRESS = "AFFWILD2_DASK_ADDRESS"
ENGINE = "AFFWILD2_ENGINE"
LOG_FORMAT = "AFFWILD2_LOG_FORMAT"
METRICS = "AFFWILD2_METRICS"
METRICS_AUTH = "AFFWILD2_METRICS_AUTH"
SERVE_URL = "AFFWILD2_SERVE_URL"
TIMEOUT = "AFFWILD2_PATIENCE_SECONDS"
VIDEO_LIMITS = "AFFWILD2_VIDEO_LIMITS"
WEIGHTS_URL = "AFFWILD2_WEIGHTS_URL"
_VARIABLES = (
    CACHE,
    DASK_ADDRESS,
    ENGINE,
    LOG_FORMAT,
    METRICS,
    METRICS_AUTH,
    SERVE_URL,
    TIMEOUT,
    VIDEO_LIMITS,
    WEIGHTS_URL,
)

# Short, because a form shows it with the value that it refuses.
DASK_ADDRESS_BEGINNING = r"^(tcp|tls)://"
# The host may be an IPv6 address in brackets.
_DASK_ADDRESS = re.compile(DASK_ADDRESS_BEGINNING + r"(\[[\w:.%]+\]|[^/\s:\[\]]+)(:(\d{1,5}))?$", re.ASCII)

# Commands that only read answer within half a minute, whatever a server does.
_SOON_SECONDS = 10.0
_answer_soon = threading.Event()


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
        dask_address: scheduler that runs use by default (``AFFWILD2_DASK_ADDRESS``); None: local workers.
        engine: engine that runs networks on a CPU (``AFFWILD2_ENGINE``); None: OpenVINO if it is installed.
        log_format: lines as text or as JSON objects (``AFFWILD2_LOG_FORMAT``).
        metrics: folder of node_exporter's textfile collector, or URL of a Pushgateway, that receives the metrics of
            runs (``AFFWILD2_METRICS``); None: no metrics.
        metrics_auth: USER:PASSWORD for the Pushgateway (``AFFWILD2_METRICS_AUTH``).
        s3_timeout_seconds: how long a failing S3 request is retried (``AFFWILD2_PATIENCE_SECONDS``).
        is_answer_soon: a server that does not answer fails all further requests at once.
        cluster_timeout_seconds: how long a run waits for a lost scheduler or for workers (the same variable).
        video_limits: maximum size of one video (``AFFWILD2_VIDEO_LIMITS``).
        serve_url: where ``affwild2 serve`` serves the store, for links (``AFFWILD2_SERVE_URL``); None: it does not.
        weights_url: mirror of the published weights (``AFFWILD2_WEIGHTS_URL``); None: their repositories.
    """

    cache: Path | None = None
    dask_address: str | None = None
    engine: Engine | None = None
    log_format: LogFormat = "text"
    metrics: str | None = None
    metrics_auth: str | None = field(default=None, repr=False)
    s3_timeout_seconds: float = 120.0
    is_answer_soon: bool = False
    cluster_timeout_seconds: float = 300.0
    video_limits: VideoLimits = field(default_factory=VideoLimits)
    weights_url: str | None = None
    serve_url: str | None = None

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
    settings = _parse(tuple(os.environ.get(name, "") for name in _VARIABLES))
    if _answer_soon.is_set() and settings.s3_timeout_seconds > _SOON_SECONDS:
        return replace(settings, s3_timeout_seconds=_SOON_SECONDS, is_answer_soon=True)
    return settings


@contextlib.contextmanager
def answering_soon() -> Iterator[None]:
    """Limit how long all threads retry failing S3 requests in the block, for commands whose user waits."""
    _answer_soon.set()
    try:
        yield
    finally:
        _answer_soon.clear()


@functools.lru_cache(maxsize=1)
def _parse(values: tuple[str, ...]) -> Settings:
    text, defaults = dict(zip(_VARIABLES, values, strict=True)), Settings()
    seconds = _parse_timeout(text[TIMEOUT])
    return Settings(
        cache=Path(text[CACHE]) if text[CACHE] else None,
        dask_address=_parse_dask_address(text[DASK_ADDRESS]),
        engine=cast(Engine | None, _parse_choice(ENGINE, text[ENGINE], get_args(Engine))),
        log_format=cast(LogFormat, _parse_choice(LOG_FORMAT, text[LOG_FORMAT], get_args(LogFormat)) or "text"),
        metrics=_parse_metrics(text[METRICS]),
        metrics_auth=_parse_metrics_auth(text[METRICS_AUTH]),
        s3_timeout_seconds=seconds or defaults.s3_timeout_seconds,
        cluster_timeout_seconds=seconds or defaults.cluster_timeout_seconds,
        video_limits=_parse_video_limits(text[VIDEO_LIMITS]),
        weights_url=_parse_url(WEIGHTS_URL, text[WEIGHTS_URL]),
        serve_url=_parse_url(SERVE_URL, text[SERVE_URL]),
    )


def _parse_choice(name: str, text: str, choices: tuple[str, ...]) -> str | None:
    if text and text not in choices:
        raise InputError(f"{name}: expected one of {', '.join(choices)}, got {text!r}")
    return text or None


def _parse_metrics(text: str) -> str | None:
    if "://" not in text:
        return text or None
    expected = f"{METRICS}: expected a folder, or the URL of a Pushgateway with http:// or https://"
    url = urlsplit(text)
    if "@" in url.netloc or url.query:
        raise InputError(f"{expected}, got a URL with a user, password or query; set {METRICS_AUTH}=USER:PASSWORD")
    if url.scheme not in ("http", "https") or not url.hostname:
        raise InputError(f"{expected}, got {text!r}")
    return text.rstrip("/")


def _parse_metrics_auth(text: str) -> str | None:
    if text and ":" not in text:
        raise InputError(f"{METRICS_AUTH}: expected USER:PASSWORD, got a value without a colon")
    return text or None


def check_dask_address(text: str) -> str:
    """Return the address of a Dask scheduler.

    Raises:
        InputError: it is no such address.
    """
    matched = _DASK_ADDRESS.search(text)
    if not matched or not 0 < int(matched[4] or 8786) < 1 << 16:
        # A password would be before an @.
        _, at, shown = text.rpartition("@")
        raise InputError(
            "expected the address of a Dask scheduler such as tcp://HOST:8786, with tcp or tls, got "
            f"{'***@' * bool(at) + shown!r}"
        )
    return text


def _parse_dask_address(text: str) -> str | None:
    try:
        return check_dask_address(text) if text else None
    except InputError as error:
        raise InputError(f"{DASK_ADDRESS}: {error}") from error


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


def _parse_url(name: str, text: str) -> str | None:
    if text and not text.startswith(("http://", "https://")):
        raise InputError(f"{name}: expected a URL with http:// or https://, got {text!r}")
    return text.rstrip("/") or None


def _positive_number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if 0 < number < math.inf else None
