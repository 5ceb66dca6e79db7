"""Publish metrics: to a file for node_exporter's textfile collector, or to a Prometheus Pushgateway.

Both keep the values of metrics that are not published again, such as the time of the last success of a run that fails.
"""

import contextlib
import functools
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from prometheus_client import CollectorRegistry, pushadd_to_gateway, write_to_textfile
from prometheus_client.exposition import basic_auth_handler, default_handler
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

_JOB = "affwild2"
# A gateway that does not answer delays the end of a run by this time.
_TIMEOUT_SECONDS = 5.0


class _Families(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterator[Metric]:
        yield from self._families


def publish(families: Iterable[Metric], *, target: str, labels: Mapping[str, str], auth: str | None = None) -> None:
    """Replace the metrics of one group with the same names.

    Args:
        families: metrics, which all have ``labels``.
        target: a folder, or the URL of a Pushgateway.
        labels: what distinguishes the group from others; each group has its own file.
        auth: USER:PASSWORD for the gateway.

    Raises:
        OSError: the folder cannot be written to, or the gateway does not accept the metrics.
    """
    registry, families = CollectorRegistry(auto_describe=False), list(families)
    registry.register(_Families(families))
    if "://" not in target:
        path = Path(target) / file_name(labels)
        registry.register(_Families(_read_others(path, {family.name for family in families})))
        write_to_textfile(str(path), registry)
        return
    user, _, password = (auth or "").partition(":")
    handler = functools.partial(basic_auth_handler, username=user, password=password) if auth else default_handler
    pushadd_to_gateway(
        target, job=_JOB, registry=registry, grouping_key=dict(labels), timeout=_TIMEOUT_SECONDS, handler=handler
    )


def file_name(labels: Mapping[str, str]) -> str:
    """Return the name of the file of a group: readable, and distinct for each group."""
    digest = hashlib.sha256("\n".join(labels.values()).encode("utf-8", "surrogateescape")).hexdigest()
    return f"{_JOB}_{next(iter(labels.values()))}_{digest[:8]}.prom"


def _read_others(path: Path, names: set[str]) -> list[Metric]:
    """Return the metrics of an earlier file, except those that are published now."""
    # A damaged file is replaced.
    with contextlib.suppress(FileNotFoundError, ValueError):
        return [one for one in text_string_to_metric_families(path.read_text()) if one.name not in names]
    return []
