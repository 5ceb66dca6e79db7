"""Train a backbone on labelled faces: phases, checkpoints and metrics. ``recipes`` holds the settings."""

import copy
import io
import logging
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from models.backbones.network import build_network, normalise
from models.backbones.registry import BackboneSpec
from models.backbones.resizing import resize_to_square
from models.engines.devices import keep_freed_memory
from models.engines.progress import Countdown, report_progress
from models.heads.losses import balanced_weights, log_prior
from models.heads.metrics import ClassScores, mean_ccc, score_classes
from models.pretraining.augmentation import augment, square_px
from models.pretraining.images import Batch, ImageSet, batch_loss, training_batches
from models.pretraining.layers import (
    load_trunk,
    make_optimizer,
    sharpness_aware_step,
    to_stored_precision,
    trained_layers,
)
from models.pretraining.recipes import Phase, PretrainingRecipe

logger = logging.getLogger(__name__)
AFFECT = ("valence", "arousal")
_SAVE_SECONDS = 300.0
_EVALUATION_BATCH = 32
# After n steps the decay of the moving average is n / (n + this), up to its limit, so it follows the weights at first.
_AVERAGE_WARM_UP = 10.0


@dataclass
class Progress:
    """The state of a training: everything that resuming needs besides weights, and the reported values."""

    epoch: int = 0
    step: int = 0
    losses: list[float] = field(default_factory=list)
    history: list[dict[str, float]] = field(default_factory=list)
    best_value: float = -math.inf
    best_epoch: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class ValidationScores:
    """Scores on the validation photos. ``mean_ccc``: of valence and arousal; None if they are not trained."""

    classes: ClassScores
    mean_ccc: float | None = None

    def to_numbers(self) -> dict[str, float]:
        """Return the scores of all photos by name."""
        numbers = {"accuracy": self.classes.accuracy, "balanced_accuracy": self.classes.balanced_accuracy}
        return numbers if self.mean_ccc is None else numbers | {"mean_ccc": self.mean_ccc}


@dataclass
class TrainedBackbone:
    """A trained network's spec and tensors.

    ``scores``: of the kept epoch; None without validation photos. ``history``: training loss and scores of each epoch.
    """

    spec: BackboneSpec
    tensors: dict[str, Tensor]
    scores: ValidationScores | None
    history: list[dict[str, float]]
    kept_epoch: int
    seconds: float


class BackboneTrainer:
    """Trains one network. Training can stop at any time and resume from the last checkpoint passed to ``save``."""

    def __init__(
        self,
        spec: BackboneSpec,
        start: dict[str, Tensor],
        recipe: PretrainingRecipe,
        *,
        class_names: tuple[str, ...],
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        """``start``: starting weights of the spec's architecture; a new class layer replaces the one in them.

        Raises:
            ValueError: a tensor is missing or has another shape.
        """
        outputs = (*class_names, *AFFECT) if recipe.valence_arousal else class_names
        self.spec, self.recipe = replace(spec, class_names=outputs, feature_layer=0, bundled=False), recipe
        self._classes, self._seed, self._device = class_names, seed, torch.device(device)
        torch.manual_seed(seed)
        self._network: Any = build_network(self.spec)
        load_trunk(self._network, start)
        # timm draws from +-1 / sqrt(outputs), which for a few classes gives large random logits.
        self._network.get_classifier().reset_parameters()
        self._network.to(self._device, memory_format=torch.channels_last)
        self._network.drop_rate = recipe.dropout
        self._average: Any = None
        if recipe.average:
            self._average = ModelEmaV3(
                self._network, recipe.average, use_warmup=True, warmup_gamma=_AVERAGE_WARM_UP, warmup_power=1.0
            )
        has_several_gpus = self._device.type == "cuda" and torch.cuda.device_count() > 1
        self._forward: Any = nn.DataParallel(self._network) if has_several_gpus else self._network
        self._best: dict[str, Tensor] | None = None
        self._progress = Progress()
        self._optimizer: torch.optim.Optimizer | None = None
        self._weights = torch.ones(len(class_names), device=self._device)
        self._prior = torch.zeros(len(class_names), device=self._device)  # log p of each class

    def run(
        self,
        train: ImageSet,
        validation: ImageSet | None,
        *,
        save: Callable[[bytes], None] = lambda data: None,
        resume: bytes | None = None,
        report: Callable[[str], None] = logger.info,
    ) -> TrainedBackbone:
        """Train all phases. ``save`` receives a checkpoint every five minutes and after each epoch.

        Raises:
            FloatingPointError: the loss is not finite. A smaller learning rate helps.
        """
        if self._device.type == "cpu":
            keep_freed_memory()
        count = len(self._classes)
        self._weights = balanced_weights(train.classes, train.weights, count, self.recipe.balance).to(self._device)
        self._prior = log_prior(train.classes, train.weights, count).to(self._device)
        if self.recipe.prior_power:
            # The class layer starts with the rest of the prior, so that first outputs are the shares of the classes.
            self._network.get_classifier().bias.data[:count] = (1 - self.recipe.prior_power) * self._prior
            if self._average:
                self._average.set(self._network)
        if resume is not None and self._load(resume):
            report(f"resuming in epoch {self._progress.epoch + 1}, after {self._progress.step} batches")
        first = 0
        for phase in self.recipe.phases:
            for epoch in range(max(first, self._progress.epoch), first + phase.epochs):
                self._run_epoch(train, phase, epoch, first, save)
                self._finish_epoch(validation, epoch, report)
                save(self._dump())
            first += phase.epochs
        kept = self._progress.best_epoch if self.recipe.keep == "best" and validation is not None else first
        evaluated = self._evaluated
        if self._best is not None:
            evaluated.load_state_dict(self._best)
        tensors = {name: to_stored_precision(tensor) for name, tensor in evaluated.state_dict().items()}
        evaluated.load_state_dict(tensors)
        scores = self.evaluate(validation) if validation is not None else None
        return TrainedBackbone(self.spec, tensors, scores, self._progress.history, kept, self._progress.seconds)

    @property
    def _evaluated(self) -> Any:
        """The network that is evaluated and whose weights are kept: the moving average, if there is one."""
        return self._average.module if self._average else self._network

    def _run_epoch(self, train: ImageSet, phase: Phase, epoch: int, first: int, save: Callable[[bytes], None]) -> None:
        progress, recipe = self._progress, self.recipe
        parameters = trained_layers(self._network, phase, frozen_stages=recipe.frozen_stages)
        if self._optimizer is None or (epoch == first and progress.step == 0):
            self._optimizer = make_optimizer(parameters, phase, weight_decay=recipe.weight_decay)
        saved = started = time.monotonic()
        batches = training_batches(
            train,
            side_px=square_px(recipe, input_px=self.spec.input_px),
            interpolation=self.spec.interpolation,
            batch_size=recipe.batch_size,
            seed=self._seed * 1000 + epoch,
            skip=progress.step,
            workers=0 if self._device.type == "cpu" else min(8, os.cpu_count() or 1),
        )
        steps = math.ceil(len(train) / recipe.batch_size)
        left = (recipe.epochs - epoch) * steps - progress.step
        count = Countdown(f"epoch {epoch + 1} of {recipe.epochs}, {{}} batches to the end", left)
        for squares, classes, affect, weights in batches:
            rate = phase.rate_at(((epoch - first) * steps + progress.step) / (phase.epochs * steps))
            for group in self._optimizer.param_groups:
                group["lr"] = rate
            progress.losses.append(self._step(squares, classes, affect, weights))
            progress.step += 1
            count.done += 1
            report_progress("{}", count)
            if self._average:
                self._average.update(self._network, step=epoch * steps + progress.step)
            if time.monotonic() - saved >= _SAVE_SECONDS:
                progress.seconds += time.monotonic() - started
                started = saved = time.monotonic()
                save(self._dump())
        progress.seconds += time.monotonic() - started

    def _step(self, squares: Tensor, classes: Tensor, affect: Tensor, weights: Tensor) -> float:
        # Random numbers depend only on seed, epoch and step, so that a resumed training draws the same ones.
        step_seed = ((self._seed * 1_000_003 + self._progress.epoch) * 1_000_003 + self._progress.step) % 2**63
        generator = torch.Generator().manual_seed(step_seed)
        device, recipe = self._device, self.recipe
        pixels = augment(squares.to(device), recipe, input_px=self.spec.input_px, generator=generator)
        batch = Batch(pixels, classes.to(device), classes.to(device), affect.to(device), weights.to(device))
        if recipe.mixing and not recipe.valence_arousal:
            batch = batch.blend(recipe.mixing, np.random.default_rng(step_seed))
        x = self._normalised(batch.pixels)

        def loss_of() -> Tensor:
            torch.manual_seed(step_seed)  # both passes of a sharpness-aware step drop out the same units
            with torch.autocast("cuda", torch.bfloat16, enabled=device.type == "cuda"):
                outputs = self._forward(x)
            prior = recipe.prior_power * self._prior
            return batch_loss(outputs.float(), batch, recipe, weights=self._weights, prior=prior)

        assert self._optimizer is not None
        loss = float(sharpness_aware_step(self._optimizer, loss_of, network=self._network, rho=recipe.rho))
        if not math.isfinite(loss):
            raise FloatingPointError(f"epoch {self._progress.epoch + 1}: expected a finite loss, got {loss}")
        return loss

    def _normalised(self, pixels: Tensor) -> Tensor:
        x = normalise(pixels.to(self._device), self.spec)
        return x.contiguous(memory_format=torch.channels_last)

    def _finish_epoch(self, validation: ImageSet | None, epoch: int, report: Callable[[str], None]) -> None:
        progress = self._progress
        entry = {"epoch": float(epoch + 1), "train_loss": float(np.mean(progress.losses or [math.nan]))}
        if validation is not None:
            entry |= self.evaluate(validation).to_numbers()
        progress.history.append(entry)
        progress.epoch, progress.step, progress.losses = epoch + 1, 0, []
        value = entry.get("accuracy", 0.0)
        if self.recipe.keep == "best" and validation is not None and value > progress.best_value:
            progress.best_value, progress.best_epoch = value, epoch + 1
            self._best = {name: tensor.detach().clone() for name, tensor in self._evaluated.state_dict().items()}
        shown = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in list(entry.items())[1:5])
        report(f"epoch {epoch + 1} of {self.recipe.epochs}: {shown}, {progress.seconds:.0f} s so far")

    @torch.inference_mode()
    def predict(self, images: ImageSet) -> np.ndarray:
        """Return class outputs float32 [n, C] of whole images at the network's input size, as ``Backbone`` does."""
        network, outputs = self._evaluated.eval(), []
        for first in range(0, len(images), _EVALUATION_BATCH):
            rows = range(first, min(first + _EVALUATION_BATCH, len(images)))
            squares = np.stack(
                [resize_to_square(images.read(row), self.spec.input_px, self.spec.interpolation) for row in rows]
            )
            outputs.append(network(self._normalised(torch.from_numpy(squares))).float().cpu().numpy())
        return np.concatenate(outputs)

    def evaluate(self, images: ImageSet) -> ValidationScores:
        """Return the scores of the current network."""
        outputs, count = self.predict(images), len(self._classes)
        scores = score_classes(images.classes, outputs[:, :count].argmax(axis=1), self._classes)
        rated = ~np.isnan(images.valence_arousal).any(axis=1)
        if self.recipe.valence_arousal and rated.sum() > 1:
            return ValidationScores(scores, mean_ccc(images.valence_arousal[rated], outputs[rated, count:]))
        return ValidationScores(scores)

    def _dump(self) -> bytes:
        assert self._optimizer is not None
        buffer = io.BytesIO()
        parts = {"network": self._network.state_dict(), "optimizer": self._optimizer.state_dict(), "best": self._best}
        average = self._average.module.state_dict() if self._average else None
        torch.save({**parts, "average": average, "progress": vars(self._progress)}, buffer)
        return buffer.getvalue()

    def _load(self, data: bytes) -> bool:
        """Load a checkpoint and return whether that succeeded; an unreadable or incompatible one changes nothing."""
        networks = [self._network, *([self._average.module] if self._average else [])]
        before = [copy.deepcopy(network.state_dict()) for network in networks]
        try:
            state = torch.load(io.BytesIO(data), map_location=self._device, weights_only=True)
            progress, best = Progress(**state["progress"]), state["best"]
            for network, name in zip(networks, ("network", "average"), strict=False):
                network.load_state_dict(state[name])
            phase = self._phase_at(max(progress.epoch - (progress.step == 0), 0))
            parameters = trained_layers(self._network, phase, frozen_stages=self.recipe.frozen_stages)
            optimizer = make_optimizer(parameters, phase, weight_decay=self.recipe.weight_decay)
            optimizer.load_state_dict(state["optimizer"])
        except Exception as error:
            cause = " ".join(str(error).split())[:300] or type(error).__name__
            logger.warning("cannot read the checkpoint, training starts from the beginning: %s", cause)
            for network, tensors in zip(networks, before, strict=True):
                network.load_state_dict(tensors)
            return False
        self._best, self._progress, self._optimizer = best, progress, optimizer
        return True

    def _phase_at(self, epoch: int) -> Phase:
        for phase in self.recipe.phases:
            if epoch < phase.epochs:
                return phase
            epoch -= phase.epochs
        return self.recipe.phases[-1]
