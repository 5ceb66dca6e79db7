import torch

from models.engines.precision import native_precision


def test_native_precision_matches_processor_features():
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    native = any(getattr(torch.cpu, name, lambda: False)() for name in checks)
    assert native_precision() == ("bfloat16" if native else "float32")
    assert native_precision("cuda") == "float32"
