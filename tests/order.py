"""Which files of tests share a process, and which come first, where several processes run them (pytest-xdist)."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from xdist.scheduler import LoadFileScheduling

# They share one Prefect server. The last of them needs the demo, which another process has made by then.
_ONE_SERVER = (
    "flows/test_deployments.py",
    "flows/test_secrets.py",
    "infra/test_monitoring_files.py",
    "flows/test_artifacts.py",
)
# The longest first: if one of them came last, the other processes would have nothing left to do.
LONGEST = (
    *_ONE_SERVER,
    "flows/test_demo.py",
    "flows/test_deployed_runs.py",
    "benchmarks/test_pairs.py",
    "models/weight_files/test_export.py",
    "flows/test_pretrain.py",
    "models/pretraining/test_training.py",
    "flows/test_extract.py",
    "flows/test_interruptions.py",
    "flows/test_hostile_input.py",
    "models/heads/test_fitting.py",
    "models/weight_files/test_conversion.py",
    "infra/test_docker_files.py",
    "flows/test_rescore.py",
    "flows/engine/test_fan_out.py",
    "flows/test_fit.py",
    "flows/commands/test_forget.py",
    "models/faces/test_mtcnn.py",
    "models/decisions/test_thresholds.py",
    "models/backbones/test_network.py",
    "models/backbones/test_cpu.py",
    "models/backbones/test_gpu.py",
    "tasks/pretrain/test_pretrain_backbone.py",
    "infra/test_slurm_files.py",
    "infra/test_kubernetes_files.py",
)


def longest_first(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """The same tests; those of a file stay together, in their order."""
    tests = Path(__file__).parent
    place = {tests / name: number for number, name in enumerate(LONGEST)}
    return sorted(items, key=lambda item: place.get(item.path, len(place)))


class FilesOfAServerTogether(LoadFileScheduling):
    """A file at a time for each process, as ``--dist loadfile`` has it; those that share a server count as one."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return "one server" if file.removeprefix("tests/") in _ONE_SERVER else file
