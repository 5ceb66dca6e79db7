"""Licences of the weights and terms of the data behind each network. docs/backbones.md names the sources."""

from dataclasses import dataclass
from typing import Literal

Commercial = Literal["no", "ask", "see file"]

# Meaning of each answer. No network here has both weights and data that are free for commercial use.
COMMERCIAL_MEANING: dict[Commercial, str] = {
    "no": "the weights have no stated licence, and their data are for research only",
    "ask": "the weights' licence allows it, the terms of their data do not",
    "see file": "as stated for the file that you pass with --weights",
}


@dataclass(frozen=True)
class Licence:
    """What is known about the use of one network.

    Attributes:
        weights: licence of the weights, or "not stated".
        data: collections that the network was trained on, first to last; "unknown" where nothing is published.
        commercial: whether a company may use it; a key of ``COMMERCIAL_MEANING``.
    """

    weights: str
    data: tuple[str, ...]
    commercial: Commercial


# Of weights that a user passes.
OF_FILE = Licence("see file", ("see file",), "see file")
# The repositories license their code only.
_PUBLISHED = Licence("not stated", ("ImageNet", "VGGFace2", "AffectNet"), "no")
_IDENTITIES = Licence("not stated", ("ImageNet", "VGGFace2"), "no")
_START_UNKNOWN = Licence("not stated", ("unknown", "VGGFace2", "AffectNet"), "no")

DETECTOR = "MTCNN (finds faces)"
# By name of the detector, of backbones, and of published networks that are not backbones here.
LICENCES: dict[str, Licence] = {
    DETECTOR: Licence("MIT", ("WIDER FACE", "CelebA"), "ask"),
    "emotion_lite0": Licence("Apache-2.0", ("ImageNet", "press photos"), "ask"),
    "efficientnet_lite0": Licence("Apache-2.0", ("ImageNet",), "ask"),
    "tf_efficientnet_b0": OF_FILE,
    "tf_efficientnet_b2": OF_FILE,
    "mobilenet_v1": OF_FILE,
    "enet_b0_8_best_vgaf": _PUBLISHED,
    "enet_b0_8_best_afew": _PUBLISHED,
    "enet_b0_8_va_mtl": _PUBLISHED,
    "enet_b2_7": _PUBLISHED,
    "enet_b2_8": _PUBLISHED,
    "enet_b2_8_best": _PUBLISHED,
    "mobilenet_7": _START_UNKNOWN,
    "mbf_va_mtl": _START_UNKNOWN,
    "mobilevit_va_mtl": _START_UNKNOWN,
    "vggface2_enet0": _IDENTITIES,
    "vggface2_enet2": _IDENTITIES,
}
