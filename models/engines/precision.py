"""How exact numbers are where a network multiplies most."""

from typing import Literal

Precision = Literal["bfloat16", "float32"]
# As LLVM calls them.
_MULTIPLY_BFLOAT16 = ("avx512bf16", "amx-bf16")


def native_precision(device: str = "cpu") -> Precision:
    """``bfloat16`` if the processor multiplies it itself (twice as fast as float32 then, many times slower if not).

    Other devices than a processor count as ``float32``. Planning asks this, so it is found out without torch.
    """
    from llvmlite.binding import get_host_cpu_features

    features = get_host_cpu_features()
    native = any(features.get(name, False) for name in _MULTIPLY_BFLOAT16)
    return "bfloat16" if native and device == "cpu" else "float32"
