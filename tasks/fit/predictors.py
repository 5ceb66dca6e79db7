"""Choose what predicts the frames of new videos: backbones, heads and post-processings, and why each was chosen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from data_contracts.details.datasets import FeaturesDetails
from data_contracts.details.heads import HeadDetails
from data_contracts.details.records import JsonObject
from data_contracts.errors import InputError
from data_contracts.store.bundles import Bundle
from data_contracts.store.store import Store
from data_contracts.vocabulary import BRANCHES_OF_TASK, Precision, is_imported, is_simulated
from models.backbones.registry import DEFAULT_BACKBONE
from models.heads.mlp import zero_shot_heads
from tasks.backbones import BackboneChoice, trained_backbones
from tasks.extract.crop_faces import CropParams, crop_params_of
from tasks.fit.fit_head import provide_zero_shot_heads
from tasks.fit.head_selection import ServingHead, fitted_heads, select_heads, select_postprocessings
from tasks.fit.stored_heads import members_of, open_head

_PRECISIONS: tuple[Precision, ...] = ("bfloat16", "float32")


@dataclass(frozen=True)
class PredictorRequest:
    """What the user named: heads, post-processings, a backbone and its weights; None: not named."""

    heads: Sequence[str] | None = None
    postprocessings: Sequence[str] | None = None
    backbone: str | None = None
    weights: Path | None = None


@dataclass(frozen=True)
class FaceFeatures:
    """How features are made: with a backbone, of faces that were detected with some settings."""

    backbone: BackboneChoice
    crop_params: CropParams


@dataclass(frozen=True)
class Predictor:
    """Heads on the same features.

    Attributes:
        features: how they are made; of blends those of every member, each once, the first member's first. The flow
            decides whether crops are stored.
        why: the reason for these backbones.
        unused: name of each fitted head that is left out -> what it was fitted on.
    """

    heads: tuple[ServingHead, ...]
    features: tuple[FaceFeatures, ...]
    why: str
    unused: Mapping[str, str] = field(default_factory=dict)

    @property
    def crop_params(self) -> CropParams:
        """How faces are detected where one set of faces must serve all features."""
        return self.features[0].crop_params

    def on_faces(self, params: CropParams) -> "Predictor":
        """Return the same predictor on faces that are detected with these settings."""
        return replace(self, features=tuple(dict.fromkeys(replace(one, crop_params=params) for one in self.features)))

    def features_of(self, head: Bundle) -> FaceFeatures:
        """Return the features that a head takes: one of the predictor, or a member of one that is a blend."""
        details = HeadDetails.of(head)
        params = replace(crop_params_of(details.crop_params), keep_crops=self.crop_params.keep_crops)
        same = [one for one in self.features if one.backbone.variant == details.backbone]
        return next((one for one in same if one.crop_params == params), same[0])

    def with_crops(self, keep_crops: bool) -> "Predictor":
        """Return the same predictor with or without stored crops."""
        params = [(one, replace(one.crop_params, keep_crops=keep_crops)) for one in self.features]
        return replace(self, features=tuple(replace(one, crop_params=new) for one, new in params))


def choose_predictors(store: Store, request: PredictorRequest) -> list[Predictor]:
    """Choose the heads of a request and open them and the weights of their backbones.

    Without a fitted head, the outputs of a backbone predict: the named one; else the only one whose features are in the
    store; else the only one that ``pretrain`` wrote; else the bundled one.

    Raises:
        InputError: there are several candidates, the requested ones contradict each other, or a file is damaged.
    """
    names_backbone = bool(request.backbone or request.weights)
    among, unused = (None, {}) if request.heads else _heads_for_videos(store, request)
    serving = select_heads(store, request.heads, postprocessings=request.postprocessings, among=among)
    if not serving and unused and not names_backbone:
        kinds = " and ".join(dict.fromkeys(unused.values()))
        raise InputError(
            f"heads in {store.url}: expected one that can predict videos, found only heads on {kinds} "
            f"({', '.join(unused)}), which no network computes; fit a head on features that extract wrote, or name a "
            "backbone with --backbone"
        )
    if not serving:
        return [replace(_without_heads(store, request), unused=unused)]
    groups: dict[tuple[FaceFeatures, ...], list[ServingHead]] = {}
    for one in serving:
        _check_blend(one.head, request)
        groups.setdefault(_features_of(store, one.head, request), []).append(one)
    for backbone in {one.backbone: None for features in groups for one in features}:
        backbone.check(store)
    why = "its features are those that the heads were fitted on"
    return [Predictor(tuple(heads), features, why, unused) for features, heads in groups.items()]


def _features_of(store: Store, bundle: Bundle, request: PredictorRequest) -> tuple[FaceFeatures, ...]:
    """Return the features that a head takes, and open the head; of a blend those of every member, each once."""
    found = []
    for one in members_of(store, bundle) or [bundle]:
        backbone = _backbone_of(store, one, request)
        _check_head(store, one, backbone)
        found.append(FaceFeatures(backbone, _detected_as(HeadDetails.of(one).crop_params)))
    return tuple(dict.fromkeys(found))


def _heads_for_videos(store: Store, request: PredictorRequest) -> tuple[list[Bundle], dict[str, str]]:
    """Return the fitted heads that can predict videos with the named backbone, if any; and the others, with why not."""
    found = fitted_heads(store)
    reasons = {head.name: HeadDetails.of(head).not_from_videos for head in found}
    fitted = [head for head in found if reasons[head.name] is None]
    not_usable = {name: why for name, why in reasons.items() if why}
    if not (request.backbone or request.weights):
        return fitted, not_usable
    on_it = [
        head
        for head in fitted
        if _named_backbone(store, head, request).variant == HeadDetails.of(head).backbone
        and not _other_backbones(HeadDetails.of(head))
    ]
    others = {head.name: "features of another backbone" for head in fitted if head not in on_it}
    if others and not on_it:
        listed = ", ".join(f"{head.name} on {HeadDetails.of(head).backbone}" for head in fitted)
        raise InputError(
            f"{_named(request)}: expected a backbone that heads in {store.url} were fitted on, found heads: {listed}; "
            "leave out the option, fit a head on features of this backbone, or use another --store"
        )
    return on_it, others | not_usable


def _named(request: PredictorRequest) -> str:
    given = (("--backbone", request.backbone), ("--weights", request.weights))
    return " ".join(f"{option} {value}" for option, value in given if value)


def _named_backbone(store: Store, head: Bundle, request: PredictorRequest) -> BackboneChoice:
    """Return the backbone that the request names, in the precision of the head; by default the head's."""
    details = HeadDetails.of(head)
    name = request.backbone or details.backbone_name
    return BackboneChoice.find(name, request.weights, details.precision or "float32", store=store)


def _check_videos(head: Bundle) -> None:
    details = HeadDetails.of(head)
    if what := details.not_from_videos:
        variants = dict.fromkeys([details.backbone, *(one.backbone for one in details.members)])
        named = [name for name in variants if is_imported(name) or is_simulated(name)] or variants
        raise InputError(
            f"head {head.name}: fitted on {what} ({', '.join(named)}), which no network computes from "
            "videos; name a head that was fitted on features that extract wrote"
        )


def _backbone_of(store: Store, head: Bundle, request: PredictorRequest) -> BackboneChoice:
    """Return the backbone whose features the head was fitted on.

    Raises:
        InputError: another one is named, or its weights are lost or have changed.
    """
    details = HeadDetails.of(head)
    if request.backbone or request.weights:
        found = _named_backbone(store, head, request)
        if found.variant != details.backbone:
            raise InputError(
                f"{_named(request)}: head {head.name} was fitted on features of {details.backbone}, this backbone "
                f"computes {found.variant}; leave out the option, or name another head"
            )
        return found
    precision = details.precision or "float32"
    if details.weights and not Path(details.weights).exists():
        # The store may have been moved, together with a backbone that it holds.
        for bundle in trained_backbones(store):
            found = BackboneChoice.trained(store, bundle, precision)
            if found.variant == details.backbone:
                return found
        raise InputError(
            f"head {head.name}: expected the weights of its backbone {details.backbone_name} in {details.weights}, "
            "found nothing there; name the file with --weights"
        )
    found = BackboneChoice.find(details.backbone_name, details.weights, precision)
    if found.variant != details.backbone:
        what = f"the weights {details.weights}" if details.weights else "this version"
        raise InputError(
            f"head {head.name}: expected features {details.backbone}, on which it was fitted, but {what} compute "
            f"{found.variant}; run extract and fit again, or name the earlier file with --weights"
        )
    return found


def _check_blend(bundle: Bundle, request: PredictorRequest) -> None:
    """Check that a blend can predict videos with the named backbone, if any.

    Raises:
        InputError: a member takes imported or simulated features, or those of another backbone than the named one.
    """
    details = HeadDetails.of(bundle)
    _check_videos(bundle)
    if (request.backbone or request.weights) and (others := _other_backbones(details)):
        raise InputError(
            f"{_named(request)}: head {bundle.name} blends heads on features of several backbones "
            f"({details.backbone}, {', '.join(others)}), each with its own weights; leave out the option, or name "
            "another head"
        )


def _other_backbones(details: HeadDetails) -> list[str]:
    """Return the features variants of members of a blend besides that of the first one."""
    return [name for name in dict.fromkeys(one.backbone for one in details.members) if name != details.backbone]


def _check_head(store: Store, bundle: Bundle, backbone: BackboneChoice) -> None:
    """Open a head, and compare the sizes of its inputs with the backbone."""
    head, spec = open_head(store, bundle), backbone.spec
    got, expected = (head.config.embedding_size, head.config.logits_size), (spec.embedding_size, len(spec.class_names))
    if got != expected:
        raise InputError(
            f"head {bundle.name}: expected one for embeddings and logits of sizes {expected}, as {backbone.name} "
            f"computes them, got one for {got}; run fit again"
        )


# -- outputs of a backbone, without fitted heads ---------------------------------------------------------------------


def _without_heads(store: Store, request: PredictorRequest) -> Predictor:
    backbone, params, why = _network_without_heads(store, request)
    backbone.check(store)
    heads = provide_zero_shot_heads(store, backbone, params)
    # No post-processing belongs to such a head: names are refused.
    select_postprocessings(store, heads, request.postprocessings)
    serving = [
        ServingHead(head, BRANCHES_OF_TASK[HeadDetails.of(head).task], why="output of the backbone; no head was fitted")
        for head in heads
    ]
    return Predictor(tuple(serving), (FaceFeatures(backbone, params),), why)


def _network_without_heads(store: Store, request: PredictorRequest) -> tuple[BackboneChoice, CropParams, str]:
    if request.backbone or request.weights:
        name = request.backbone or DEFAULT_BACKBONE
        return BackboneChoice.find(name, request.weights, store=store), CropParams(), f"{_named(request)}; no head"
    extracted = _extracted_networks(store)
    if len(extracted) > 1:
        options = [f"--backbone {name}" + (f" --weights {weights}" if weights else "") for name, weights in extracted]
        raise InputError(
            f"{store.url}: no head was fitted, and several backbones that predict were extracted with; choose one: "
            f"{'; '.join(sorted(options))}"
        )
    if extracted:
        ((backbone, params), *others) = next(iter(extracted.values()))
        if others:
            # Features of one backbone with several settings: those of ``extract`` without options.
            backbone, params = replace(backbone, precision="bfloat16"), CropParams()
        return backbone, params, "no head was fitted; the store has features of this backbone"
    trained = {bundle.name: BackboneChoice.trained(store, bundle) for bundle in trained_backbones(store)}
    predicting = {name: one for name, one in trained.items() if _can_predict(one)}
    if len(predicting) > 1:
        raise InputError(
            f"{store.url}: no head was fitted, and pretrain wrote several backbones that predict: "
            f"{', '.join(predicting)}; choose one with --backbone"
        )
    for backbone in predicting.values():
        return backbone, CropParams(), "no head was fitted; pretrain wrote this backbone"
    return BackboneChoice(DEFAULT_BACKBONE), CropParams(), "bundled; no head was fitted, and nothing else extracted"


def _extracted_networks(store: Store) -> dict[tuple[str, str | None], list[tuple[BackboneChoice, CropParams]]]:
    """Return the backbones that predict among those whose features the store has, with the settings of each variant.

    Raises:
        InputError: the weights that features were computed with are lost or have changed.
    """
    units = store.manifests("features") | store.manifests("face_features")
    variants = {(key.value("backbone"), key.value("source")): manifest for key, manifest in units.items()}
    found: dict[tuple[str, str | None], list[tuple[BackboneChoice, CropParams]]] = {}
    for (variant, _), manifest in sorted(variants.items()):
        details = FeaturesDetails.of(manifest)
        if any(is_simulated(name) or is_imported(name) for name in (variant, details.backbone_name)):
            continue
        backbone = _backbone_of_features(variant, details)
        if _can_predict(backbone):
            settings = found.setdefault((details.backbone_name, details.weights), [])
            if (one := (backbone, _detected_as(details.crop_params))) not in settings:
                settings.append(one)
    return found


def _detected_as(crop_params: JsonObject | None) -> CropParams:
    """Return how faces were detected and cropped, whether or not the crops were stored."""
    return replace(crop_params_of(crop_params), keep_crops=True)


def _backbone_of_features(variant: str, details: FeaturesDetails) -> BackboneChoice:
    # Earlier versions did not store the precision.
    precisions = (details.precision,) if details.precision else _PRECISIONS
    try:
        choices = [BackboneChoice.find(details.backbone_name, details.weights, precision) for precision in precisions]
    except InputError as error:
        raise InputError(f"features {variant}: {error}; name a backbone with --backbone and --weights") from error
    same = [choice for choice in choices if choice.variant == variant]
    if details.weights and not same:
        raise InputError(
            f"features {variant}: expected the weights that they were computed with in {details.weights}, found "
            "others; name a backbone with --backbone and --weights"
        )
    return (same or choices)[0]


def _can_predict(backbone: BackboneChoice) -> bool:
    spec = backbone.spec
    try:
        return bool(zero_shot_heads(spec.class_names, spec.embedding_size))
    except ValueError:
        return False
