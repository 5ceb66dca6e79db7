"""Numeric precision of matrix products: bfloat16 or float32."""

import re
from pathlib import Path

from data_contracts.vocabulary import Precision

_CPU_INFO = Path("/proc/cpuinfo")
_BFLOAT16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})


def native_precision(device: str = "cpu") -> Precision:
    """Return ``bfloat16`` if this machine's processor has instructions that multiply it, else ``float32``.

    With such instructions bfloat16 is twice as fast as float32; without them it is many times slower. Every device
    other than ``cpu`` counts as ``float32``, and so does a processor whose features the kernel does not list in
    ``/proc/cpuinfo``. Planning calls this function, so it must not import torch.
    """
    if device != "cpu":
        return "float32"
    try:
        flags = re.search(r"^flags\s*:(.*)$", _CPU_INFO.read_text(), re.MULTILINE)
    except OSError:
        return "float32"
    return "bfloat16" if flags and _BFLOAT16_FLAGS.intersection(flags[1].split()) else "float32"
