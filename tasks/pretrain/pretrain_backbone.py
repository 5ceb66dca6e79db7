"""Stage ``pretrain_backbone``: train a backbone on labelled faces, with scores and curves of the training."""

import contextlib
import hashlib
import io
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

import numpy as np

from data_contracts.challenge.pictures import PICTURE_EXPRESSIONS
from data_contracts.details.backbones import BackboneDetails, PictureCoverage, PictureFigures, PictureSetSize
from data_contracts.errors import InputError
from data_contracts.store.fingerprint import fingerprint, variant_name
from data_contracts.store.manifest import StoredUnit
from data_contracts.store.store import Store
from data_contracts.vocabulary import FACE_FOUND
from models.backbones.weights import spec_of, weights_digest
from models.engines.devices import default_device
from models.engines.progress import track
from models.pretraining.recipes import PretrainingRecipe
from tasks.backbones import WEIGHTS_FILE
from tasks.units import Files, Job

if TYPE_CHECKING:
    from models.pretraining.images import ImageSet
    from models.pretraining.training import TrainedBackbone

CODE_VERSION = 2
_COLUMNS = ("row", "picture", "status", "identity", "expression", "valence", "arousal", "crop_jpeg")
_DESCRIBED = ("class_names", "input_px", "mean", "std", "scale", "channel_order", "feature_layer")
_CURVES = ("accuracy", "balanced_accuracy", "mean_ccc")
# Classes with fewer training photos are skipped.
_FEWEST_TRAINING_PICTURES = 10

Report = Callable[[str], None]


@dataclass(frozen=True)
class PretrainingChoice:
    """A backbone, the weights to start from, and how it is trained and validated.

    Attributes:
        weights: file with the weights to start from; None: the bundled ones.
        input_px: input size; None: that of the backbone.
        validation_share: fraction of people (goal ``emotion``) or of each person's photos (``identity``) in the
            validation set, if no validation photos are given.
        untrained: people whose emotions are not trained on because their labels are doubtful. They may be in the
            validation set.
        excluded: people whose pictures in the given validation photos are not used, because training shows them too.
    """

    backbone: str
    recipe: PretrainingRecipe
    weights: str | None = None
    input_px: int | None = None
    validation_share: float = 0.25
    untrained: tuple[str, ...] = ()
    seed: int = 0
    excluded: tuple[str, ...] = ()

    def fingerprint_fields(self) -> dict[str, object]:
        """Return all fields, without ``excluded`` if it changes nothing; see ``fingerprint``."""
        named = {one.name: getattr(self, one.name) for one in fields(self)}
        return named if self.excluded else {name: value for name, value in named.items() if name != "excluded"}


class _Labels(NamedTuple):
    """Labels of one used crop. ``person``: name of the person, or of the photo if the person is unknown."""

    label: str | None
    valence_arousal: tuple[float, float]
    person: str


@dataclass(frozen=True)
class PretrainBackboneArgs:
    """Units of ``pictures`` to train and validate on (None: a share of the former), the choice, a progress callback."""

    units: Sequence[StoredUnit]
    validation: Sequence[StoredUnit] | None
    choice: PretrainingChoice
    report: Report


def plan_pretrain_backbone(
    units: Sequence[StoredUnit],
    validation: Sequence[StoredUnit] | None,
    choice: PretrainingChoice,
    *,
    report: Report = lambda line: None,
) -> Job[PretrainBackboneArgs]:
    """Plan the job that trains one backbone on units of ``pictures``. ``report`` receives lines about the progress."""
    filter_used = spec_of(choice.backbone, Path(choice.weights) if choice.weights else None).interpolation
    job_fingerprint = fingerprint(
        stage="pretrain_backbone",
        version=CODE_VERSION,
        pictures=[manifest.identity for _, manifest in units],
        validation=[manifest.identity for _, manifest in validation] if validation else None,
        choice=replace(choice, weights=None),
        start=weights_digest(choice.backbone, choice.weights),
        # Earlier versions resized the pictures of every backbone by Pillow.
        **({"interpolation": filter_used} if filter_used != "bilinear" else {}),
    )
    name = variant_name(f"{choice.backbone}-{choice.recipe.goal}", job_fingerprint)
    return Job(f"backbones/{name}", job_fingerprint, PretrainBackboneArgs(units, validation, choice, report))


def make(store: Store, job: Job[PretrainBackboneArgs]) -> Files:
    """Train a backbone, from the last checkpoint of the same job if there is one. Remove the checkpoint at the end.

    Raises:
        InputError: too few labelled faces, weights of another architecture, or a loss that is not finite.
    """
    # Planning does not need these slow imports.
    from models.backbones.network import load_backbone
    from models.pretraining.training import BackboneTrainer

    choice, resume = job.arguments.choice, None
    start = load_backbone(choice.backbone, weights=Path(choice.weights) if choice.weights else None)
    spec = start.spec.with_metadata(
        {
            "input_px": choice.input_px or start.spec.input_px,
            "channel_order": "grey" if choice.recipe.grey else start.spec.channel_order,
        }
    )
    checkpoint = f"{job.folder}/_checkpoint.pt"
    with tempfile.TemporaryDirectory(prefix="affwild2-pictures-") as scratch:
        names, train, validation, coverage = _gather(store, job.arguments, Path(scratch))
        with contextlib.suppress(FileNotFoundError):
            resume = store.read_bytes(checkpoint)
        try:
            trainer = BackboneTrainer(
                spec, start.tensors, choice.recipe, class_names=names, seed=choice.seed, device=default_device()
            )
            trained = trainer.run(
                train,
                validation,
                save=lambda data: store.write_bytes(checkpoint, data),
                resume=resume,
                report=job.arguments.report,
            )
        except (ValueError, FloatingPointError) as error:
            raise InputError(f"{job.name}: {error}") from error
    figures = PictureFigures()
    if trained.scores:
        figures = PictureFigures(**vars(trained.scores.classes), mean_ccc=trained.scores.mean_ccc)
    details = BackboneDetails(coverage=coverage, figures=figures, kept_epoch=trained.kept_epoch)
    files = _files(choice, trained, details)
    with contextlib.suppress(FileNotFoundError):
        store.remove(checkpoint)
    return Files(files, details)


def _gather(
    store: Store, given: PretrainBackboneArgs, scratch: Path
) -> tuple[tuple[str, ...], "ImageSet", "ImageSet | None", PictureCoverage]:
    from models.pretraining.images import ImageFile

    choice, validation = given.choice, given.validation
    for name in ("train", "validation"):
        (scratch / name).mkdir()
    files = {name: ImageFile(scratch / name) for name in ("train", "validation")}
    rows: dict[str, list[_Labels]] = {name: [] for name in files}
    statuses: Counter[str] = Counter()
    untrained = excluded = 0
    for units, fixed in ((given.units, "train" if validation else None), (validation or (), "validation")):
        for key, manifest in track(units, "reading pictures: {} units"):
            for row in store.read_unit(key, manifest, columns=_COLUMNS).to_pylist():
                statuses[row["status"]] += 1
                label = row["identity"] if choice.recipe.goal == "identity" else row["expression"]
                rated = choice.recipe.valence_arousal and row["valence"] is not None
                if row["status"] != FACE_FOUND or not (label or rated):
                    continue
                name = fixed or split_of(row, choice)
                if name == "train" and row["identity"] in choice.untrained:
                    untrained += 1
                    continue
                if name == "validation" and row["identity"] in choice.excluded:
                    excluded += 1
                    continue
                files[name].add(row["crop_jpeg"])
                affect = (row["valence"], row["arousal"]) if row["valence"] is not None else (np.nan, np.nan)
                rows[name].append(_Labels(label, affect, row["identity"] or row["picture"]))
    names, dropped = _class_names(rows["train"], choice.recipe.goal)
    sets = {name: files[name].finish(*_targets(rows[name], names, choice.recipe.person_power)) for name in files}
    sizes = {
        name: PictureSetSize(pictures=len(one), people=len({row.person for row in one})) for name, one in rows.items()
    }
    coverage = PictureCoverage(
        status=dict(statuses),
        untrained_pictures=untrained,
        excluded_pictures=excluded,
        train=sizes["train"],
        validation=sizes["validation"],
        train_pictures_per_class=dict(Counter(row.label for row in rows["train"] if row.label))
        if len(names) <= 16
        else {},
        too_rare=dropped,
    )
    has_validation = bool(len(sets["validation"])) and (sets["validation"].classes >= 0).any()
    return names, sets["train"], sets["validation"] if has_validation else None, coverage


def split_of(row: Mapping[str, str | None], choice: PretrainingChoice) -> str:
    """Assign a row to ``train`` or ``validation`` by a hash of the person (emotions) or the file name (identities)."""
    picture = row["picture"] or ""
    hashed = picture.rsplit("/", 1)[-1] if choice.recipe.goal == "identity" else row["identity"] or picture
    share = int.from_bytes(hashlib.sha256(f"{choice.seed}:{hashed}".encode()).digest()[:4], "big") / 2**32
    return "validation" if share < choice.validation_share else "train"


def _class_names(rows: Sequence[_Labels], goal: str) -> tuple[tuple[str, ...], dict[str, int]]:
    counts = Counter(row.label for row in rows if row.label)
    if goal == "identity":
        names, dropped = tuple(sorted(counts)), {}
    else:
        names = tuple(name for name in PICTURE_EXPRESSIONS if counts[name] >= _FEWEST_TRAINING_PICTURES)
        dropped = {name: count for name, count in counts.items() if name not in names}
    if len(names) < 2:
        found = ", ".join(f"{count} {name}" for name, count in counts.most_common(8)) or "none"
        raise InputError(
            f"{goal}: expected faces of at least two classes with {_FEWEST_TRAINING_PICTURES} pictures, got {found}"
        )
    return names, dropped


def _targets(
    rows: Sequence[_Labels], names: tuple[str, ...], person_power: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    index = {name: at for at, name in enumerate(names)}
    classes = np.array([index.get(row.label or "", -1) for row in rows], np.int64)
    pairs = [(row.person, row.label) for row in rows]
    counts = Counter(pairs)
    weights = np.array([counts[pair] ** -person_power for pair in pairs], np.float32)
    return classes, np.array([row.valence_arousal for row in rows], np.float32).reshape(-1, 2), weights


def _files(choice: PretrainingChoice, trained: "TrainedBackbone", details: BackboneDetails) -> dict[str, bytes]:
    import safetensors.torch

    described = trained.spec.metadata(_DESCRIBED)
    metrics = {
        **details.to_json(),
        "training_seconds": round(trained.seconds, 1),
        "recipe": asdict(choice.recipe),
        "history": trained.history,
    }
    curves = io.BytesIO()
    draw_curves(trained.history, curves)
    return {
        WEIGHTS_FILE: safetensors.torch.save(trained.tensors, {"affwild2": json.dumps(described)}),
        "metrics.json": json.dumps(metrics, indent=1).encode() + b"\n",
        "curves.png": curves.getvalue(),
    }


def draw_curves(history: Sequence[dict[str, float]], file: IO[bytes]) -> None:
    """Write a PNG: training loss on the left, metrics on the validation set on the right.

    ``history``: per epoch ``epoch``, ``train_loss`` and any of the metrics.
    """
    # Only the end of a training needs matplotlib.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    loss, figures = figure.subplots(1, 2)
    epochs = [entry["epoch"] for entry in history]
    loss.plot(epochs, [entry["train_loss"] for entry in history], marker="o", color="tab:blue")
    loss.set(title="Training loss", xlabel="epoch", ylabel="loss")
    for name in _CURVES:
        points = [(entry["epoch"], entry[name]) for entry in history if name in entry]
        if points:
            figures.plot(*zip(*points, strict=True), marker="o", label=name.replace("_", " "))
    figures.set(title="Validation", xlabel="epoch", ylim=(0, 1))
    if figures.lines:
        figures.legend(loc="lower right")
    for axes in (loss, figures):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    figure.savefig(file, format="png", dpi=110)
