"""Training a backbone on labelled faces: phases, checkpoints, figures. Recipes are in ``pretraining_recipes``."""

import copy
import io
import logging
import math
import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from models.backbones.network import build_network, normalise
from models.backbones.registry import BackboneSpec
from models.backbones.weights import resize_to_square
from models.engines.devices import keep_freed_memory
from models.heads.losses import balanced_weights, log_prior
from models.heads.metrics import mean_ccc, score_classes
from models.pretraining.augmentation import square_px, vary_pictures
from models.pretraining.batch import Batch, batch_loss
from models.pretraining.layers import load_trunk, make_optimizer, stored, trained_layers
from models.pretraining.pictures import PictureSet, training_batches
from models.pretraining.progress import Progress, TrainedBackbone
from models.pretraining.recipes import Phase, PretrainingRecipe
from models.pretraining.sharpness_aware import sharpness_aware_step

logger = logging.getLogger(__name__)
AFFECT = ("valence", "arousal")
_SAVE_SECONDS = 300.0
_EVALUATION_BATCH = 32
# The moving average follows the weights closely at first: after n steps its decay is n / (n + this), up to its limit.
_AVERAGE_WARM_UP = 10.0


class BackboneTrainer:
    """Trains one network; can be stopped at any time and goes on from what ``save`` was given last."""

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
        """``start``: tensors of the spec's architecture; its class layer is replaced by a new one.

        Raises:
            ValueError: a tensor is missing or of another shape.
        """
        outputs = (*class_names, *AFFECT) if recipe.valence_arousal else class_names
        self.spec, self.recipe = replace(spec, class_names=outputs, feature_layer=0, bundled=False), recipe
        self._classes, self._seed, self._device = class_names, seed, torch.device(device)
        torch.manual_seed(seed)
        self._network: Any = build_network(self.spec)
        load_trunk(self._network, start)
        # timm draws from +-1 / sqrt(outputs), which for a handful of classes means large and random logits.
        self._network.classifier.reset_parameters()
        self._network.to(self._device, memory_format=torch.channels_last)
        self._network.drop_rate = recipe.dropout
        self._average: Any = None
        if recipe.average:
            self._average = ModelEmaV3(
                self._network, recipe.average, use_warmup=True, warmup_gamma=_AVERAGE_WARM_UP, warmup_power=1.0
            )
        self._forward: Any = nn.DataParallel(self._network) if _several_gpus(self._device) else self._network
        self._best: dict[str, Tensor] | None = None
        self._progress = Progress()
        self._optimizer: torch.optim.Optimizer | None = None
        self._weights = torch.ones(len(class_names), device=self._device)
        self._prior = torch.zeros(len(class_names), device=self._device)  # log p of each class

    def run(
        self,
        train: PictureSet,
        validation: PictureSet | None,
        *,
        save: Callable[[bytes], None] = lambda data: None,
        resume: bytes | None = None,
        report: Callable[[str], None] = logger.info,
    ) -> TrainedBackbone:
        """Train all phases; ``save`` gets a checkpoint every few minutes and after each epoch.

        Raises:
            FloatingPointError: the loss is not finite; a smaller learning rate helps.
        """
        if self._device.type == "cpu":
            keep_freed_memory()
        count = len(self._classes)
        self._weights = balanced_weights(train.classes, train.weights, count, self.recipe.balance).to(self._device)
        self._prior = log_prior(train.classes, train.weights, count).to(self._device)
        if self.recipe.prior_power:
            # The class layer starts with the rest of the prior: what the loss sees at first are the classes' shares.
            self._network.classifier.bias.data[:count] = (1 - self.recipe.prior_power) * self._prior
            if self._average:
                self._average.set(self._network)
        if resume is not None and self._load(resume):
            report(f"goes on in epoch {self._progress.epoch + 1}, after {self._progress.step} batches")
        first = 0
        for phase in self.recipe.phases:
            for epoch in range(max(first, self._progress.epoch), first + phase.epochs):
                self._run_epoch(train, phase, epoch, first, save)
                self._finish_epoch(validation, epoch, report)
                save(self._dump())
            first += phase.epochs
        kept = self._progress.best_epoch if self.recipe.keep == "best" and validation is not None else first
        measured = self._measured
        if self._best is not None:
            measured.load_state_dict(self._best)
        tensors = {name: stored(tensor) for name, tensor in measured.state_dict().items()}
        measured.load_state_dict(tensors)
        figures = self.evaluate(validation) if validation is not None else {}
        return TrainedBackbone(self.spec, tensors, figures, self._progress.history, kept, self._progress.seconds)

    @property
    def _measured(self) -> Any:
        """The network whose figures count and whose weights are kept."""
        return self._average.module if self._average else self._network

    def _run_epoch(
        self, train: PictureSet, phase: Phase, epoch: int, first: int, save: Callable[[bytes], None]
    ) -> None:
        progress, recipe = self._progress, self.recipe
        parameters = trained_layers(self._network, phase, frozen_stages=recipe.frozen_stages)
        if self._optimizer is None or (epoch == first and progress.step == 0):
            self._optimizer = make_optimizer(parameters, phase, weight_decay=recipe.weight_decay)
        saved = started = time.monotonic()
        batches = training_batches(
            train,
            side_px=square_px(recipe, input_px=self.spec.input_px),
            batch_size=recipe.batch_size,
            seed=self._seed * 1000 + epoch,
            skip=progress.step,
            workers=0 if self._device.type == "cpu" else min(8, os.cpu_count() or 1),
        )
        steps = math.ceil(len(train) / recipe.batch_size)
        for squares, classes, affect, weights in batches:
            rate = phase.rate_at(((epoch - first) * steps + progress.step) / (phase.epochs * steps))
            for group in self._optimizer.param_groups:
                group["lr"] = rate
            progress.losses.append(self._step(squares, classes, affect, weights))
            progress.step += 1
            if self._average:
                self._average.update(self._network, step=epoch * steps + progress.step)
            if time.monotonic() - saved >= _SAVE_SECONDS:
                progress.seconds += time.monotonic() - started
                started = saved = time.monotonic()
                save(self._dump())
        progress.seconds += time.monotonic() - started

    def _step(self, squares: Tensor, classes: Tensor, affect: Tensor, weights: Tensor) -> float:
        # What chance decides hangs on the place in the training alone, so that a resumed one decides the same.
        chance = ((self._seed * 1_000_003 + self._progress.epoch) * 1_000_003 + self._progress.step) % 2**63
        generator = torch.Generator().manual_seed(chance)
        device, recipe = self._device, self.recipe
        pixels = vary_pictures(squares.to(device), recipe, input_px=self.spec.input_px, generator=generator)
        batch = Batch(pixels, classes.to(device), classes.to(device), affect.to(device), weights.to(device))
        if recipe.mixing and not recipe.valence_arousal:
            batch = batch.mixed(recipe.mixing, np.random.default_rng(chance))
        x = self._normalised(batch.pixels)

        def loss_of() -> Tensor:
            torch.manual_seed(chance)  # both passes of a sharpness-aware step drop the same units
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

    def _finish_epoch(self, validation: PictureSet | None, epoch: int, report: Callable[[str], None]) -> None:
        progress = self._progress
        entry = {"epoch": float(epoch + 1), "train_loss": float(np.mean(progress.losses or [math.nan]))}
        if validation is not None:
            figures = self.evaluate(validation)
            entry |= {name: value for name, value in figures.items() if isinstance(value, float)}
        progress.history.append(entry)
        progress.epoch, progress.step, progress.losses = epoch + 1, 0, []
        value = entry.get("accuracy", 0.0)
        if self.recipe.keep == "best" and validation is not None and value > progress.best_value:
            progress.best_value, progress.best_epoch = value, epoch + 1
            self._best = {name: tensor.detach().clone() for name, tensor in self._measured.state_dict().items()}
        shown = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in list(entry.items())[1:5])
        report(f"epoch {epoch + 1} of {self.recipe.epochs}: {shown}, {progress.seconds:.0f} s so far")

    @torch.inference_mode()
    def outputs_of(self, pictures: PictureSet) -> np.ndarray:
        """Class outputs float32 [n, C], each picture whole and at the network's size, as ``Backbone`` does it."""
        network, found = self._measured.eval(), []
        for first in range(0, len(pictures), _EVALUATION_BATCH):
            rows = range(first, min(first + _EVALUATION_BATCH, len(pictures)))
            images = np.stack([resize_to_square(pictures.picture(row), self.spec.input_px) for row in rows])
            found.append(network(self._normalised(torch.from_numpy(images))).float().cpu().numpy())
        return np.concatenate(found)

    def evaluate(self, pictures: PictureSet) -> dict[str, Any]:
        """Accuracy, balanced accuracy, recall per class, CCC where it is trained; see ``score_classes``."""
        outputs, count = self.outputs_of(pictures), len(self._classes)
        figures = score_classes(pictures.classes, outputs[:, :count].argmax(axis=1), self._classes)
        rated = ~np.isnan(pictures.valence_arousal).any(axis=1)
        if self.recipe.valence_arousal and rated.sum() > 1:
            figures["mean_ccc"] = mean_ccc(pictures.valence_arousal[rated], outputs[rated, count:])
        return figures

    def _dump(self) -> bytes:
        assert self._optimizer is not None
        buffer = io.BytesIO()
        parts = {"network": self._network.state_dict(), "optimizer": self._optimizer.state_dict(), "best": self._best}
        average = self._average.module.state_dict() if self._average else None
        torch.save({**parts, "average": average, "progress": vars(self._progress)}, buffer)
        return buffer.getvalue()

    def _load(self, data: bytes) -> bool:
        """Go on from a checkpoint; one that cannot be read, or is of another form, is as none."""
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
            logger.warning("the checkpoint cannot be read, training starts anew: %s", cause)
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


def _several_gpus(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.device_count() > 1
