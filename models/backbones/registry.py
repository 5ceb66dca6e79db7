"""The registry of backbones: everything that a network needs besides its weights. ``network`` builds the networks.

To add a backbone of any timm architecture, add one ``BackboneSpec`` to ``_SPECS``.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from data_contracts.vocabulary import ScoreForm

DEFAULT_BACKBONE = "emotion_lite0"
Interpolation = Literal["bilinear", "opencv_bilinear"]
AFFECTNET_8 = ("Anger", "Contempt", "Disgust", "Fear", "Happiness", "Neutral", "Sadness", "Surprise")
COMMON_5 = ("Anger", "Happiness", "Neutral", "Sadness", "Surprise")
AFFECTNET_7 = ("Anger", "Disgust", "Fear", "Happiness", "Neutral", "Sadness", "Surprise")
UNKNOWN_IDENTITY = "identity_unknown"
IMAGENET_1000 = tuple(f"imagenet_{index:04d}" for index in range(1000))

# Keras' ImageNet means, in blue-green-red order. Training and inference of the published MobileNet both subtract them
# from red-green-blue images (the authors' ABAW3 notebook), so the mismatch is part of that network.
_KERAS_MEANS = (103.939, 116.779, 123.68)
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class BackboneSpec:
    """A network and the preprocessing of its input.

    A face is resized to a square of ``input_px`` without keeping its aspect ratio, divided by ``scale``, and normalised
    per channel: (x - mean) / std.

    Attributes:
        architecture: name in timm.
        interpolation: how faces are resized: ``bilinear`` as by Pillow, antialiased, or ``opencv_bilinear`` as by
            ``cv2.resize``, from the two nearest pixels of each axis. A network needs the one it was trained with.
        channel_order: content of the three channels; ``grey`` means luminance in all of them.
        pad_type: padding rule of strided convolutions if it differs from timm's default ("" means timm's default).
        feature_layer: units of a layer between embedding and classes; 0 means none.
        feature_activation: activation of that layer: ``relu`` or ``linear``.
        bn_eps: epsilon of batch normalisation if it differs from timm's default (0 means timm's default).
        class_outputs: output of the class layer; raw logits for all networks so far.
        published_scores: what the authors' heads take as scores of this backbone: these logits or, for MobileNet, their
            softmax (A3 c14, c21). Features always hold logits; only heads of the recipe ``paper`` use this.
        bundled: whether a package contains the weights.
    """

    name: str
    architecture: str
    input_px: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    embedding_size: int
    class_names: tuple[str, ...]
    scale: float = 255.0
    interpolation: Interpolation = "bilinear"
    channel_order: Literal["RGB", "grey"] = "RGB"
    class_outputs: Literal["logits"] = "logits"
    published_scores: ScoreForm = "logits"
    pad_type: str = ""
    feature_layer: int = 0
    feature_activation: str = "relu"
    bn_eps: float = 0.0
    bundled: bool = False

    def __post_init__(self) -> None:
        if self.channel_order not in ("RGB", "grey"):
            raise ValueError(f"{self.name}: expected channel_order RGB or grey, got {self.channel_order!r}")
        if self.interpolation not in get_args(Interpolation):
            known = " or ".join(get_args(Interpolation))
            raise ValueError(f"{self.name}: expected interpolation {known}, got {self.interpolation!r}")
        if self.published_scores not in get_args(ScoreForm):
            known = " or ".join(get_args(ScoreForm))
            raise ValueError(f"{self.name}: expected published_scores {known}, got {self.published_scores!r}")
        if self.feature_activation not in ("relu", "linear"):
            raise ValueError(f"{self.name}: expected feature_activation relu or linear, got {self.feature_activation}")
        if self.input_px < 32 or self.embedding_size < 1 or not self.class_names:
            raise ValueError(f"{self.name}: expected an input of at least 32 px, an embedding and classes")

    def fingerprint_fields(self) -> dict[str, Any]:
        """Return what features depend on: all fields except how heads take the scores."""
        return {name: value for name, value in asdict(self).items() if name != "published_scores"}

    def metadata(self, names: tuple[str, ...]) -> dict[str, Any]:
        """Return fields for the metadata of a weights file: those named, and how MobileNet differs from the others.

        A field that later versions added is left out while it has its default: equal weights then give equal files.
        """
        values, added = asdict(self), {"interpolation": "bilinear", "published_scores": "logits"}
        differing = {name: values[name] for name, default in added.items() if values[name] != default}
        return {name: values[name] for name in names} | differing

    def with_metadata(self, metadata: dict[str, Any]) -> "BackboneSpec":
        """Return the spec with the fields that a weights file states in its metadata.

        Raises:
            ValueError: a field is unknown.
        """
        unknown = sorted(set(metadata) - set(asdict(self)))
        if unknown:
            raise ValueError(f"{self.name}: expected preprocessing fields of a backbone, got {', '.join(unknown)}")
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in metadata.items()
        }
        return replace(self, **values)


_LITE0 = "tf_efficientnet_lite0"
_LITE_MEAN = (127 / 255,) * 3
_LITE_STD = (128 / 255,) * 3
_SPECS = (
    # Trained by this project: docs/model_card.md.
    BackboneSpec(
        "emotion_lite0", _LITE0, 144, _LITE_MEAN, _LITE_STD, 1280, COMMON_5, channel_order="grey", bundled=True
    ),
    BackboneSpec("efficientnet_lite0", _LITE0, 224, _LITE_MEAN, _LITE_STD, 1280, IMAGENET_1000, bundled=True),
    BackboneSpec("tf_efficientnet_b0", "tf_efficientnet_b0", 224, _IMAGENET_MEAN, _IMAGENET_STD, 1280, AFFECTNET_8),
    # 260 px, as in the published code; the paper says 300 (Savchenko 2022, section 2).
    BackboneSpec("tf_efficientnet_b2", "tf_efficientnet_b2", 260, _IMAGENET_MEAN, _IMAGENET_STD, 1408, AFFECTNET_8),
    BackboneSpec(
        "mobilenet_v1",
        "mobilenetv1_100",
        224,
        _KERAS_MEANS,
        (1.0, 1.0, 1.0),
        1024,
        AFFECTNET_7,
        scale=1.0,
        interpolation="opencv_bilinear",
        published_scores="probabilities",
        pad_type="same",
        feature_layer=256,
    ),
)


def _published_specs() -> list[BackboneSpec]:
    """Return specs for the published weights: the networks above with the classes that each was trained for."""
    specs = {spec.name: spec for spec in _SPECS}
    b0, b2 = specs["tf_efficientnet_b0"], specs["tf_efficientnet_b2"]
    found = [replace(b0, name=f"enet_b0_8_best_{name}") for name in ("vgaf", "afew")]
    found.append(replace(b0, name="enet_b0_8_va_mtl", class_names=(*AFFECTNET_8, "valence", "arousal")))
    found.append(replace(b2, name="enet_b2_7", class_names=AFFECTNET_7))
    found += [replace(b2, name=name) for name in ("enet_b2_8", "enet_b2_8_best")]
    found.append(replace(specs["mobilenet_v1"], name="mobilenet_7", bn_eps=1e-3))
    # Trained to identify people: starting points for training. The class layer, if the file has one, is not used.
    faces = [replace(b0, name="vggface2_enet0"), replace(b2, name="vggface2_enet2")]
    return [*found, *(replace(spec, class_names=(UNKNOWN_IDENTITY,)) for spec in faces)]


REGISTRY: dict[str, BackboneSpec] = {spec.name: spec for spec in (*_SPECS, *_published_specs())}


def get_spec(name: str) -> BackboneSpec:
    """Return the spec of that name.

    Raises:
        ValueError: unknown name; the message lists the known ones.
    """
    if name not in REGISTRY:
        raise ValueError(f"backbone: expected one of {', '.join(REGISTRY)}, got {name!r}")
    return REGISTRY[name]
