"""How exact numbers are where a network multiplies most."""

from typing import Literal

Precision = Literal["bfloat16", "float32"]
