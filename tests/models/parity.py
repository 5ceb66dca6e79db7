"""Compare the product with the published arithmetic, function by function and fit by fit.

``.venv/services/bin/python -m tests.models.parity`` prints the table of docs/results.md, with the heads of Keras.
"""

import contextlib
import dataclasses
import importlib.util
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from models.backbones.resizing import resize_to_square
from models.decisions import thresholds
from models.decisions.smoothing import interpolate_missing, smooth
from models.heads import fitting, losses, metrics
from models.heads.head import BranchConfig, FitSettings, HeadConfig
from models.heads.mlp import MlpHead
from models.heads.recipes import HeadRecipe
from models.heads.rows import RowReader, TrainingRows, moments
from models.heads.sequences import SubjectSequence, to_scores
from models.recipes.registry import find_recipe
from tests.models import published_arithmetic as published

VARIANTS = {
    f"{task}, {layers}": find_recipe("paper").variant(task, hidden_units=units).parts[0]
    for task in ("expr", "va", "au", "mtl")
    for layers, units in (("linear", 0), ("one hidden layer", 5))
}


def make_rows(count, seed):
    """Rows with labels of all branches, some of them missing."""
    random = np.random.default_rng(seed)
    x, logits = random.normal(size=(count, 9)).astype("f2"), random.normal(size=(count, 4)).astype("f4")
    expr = (3 * x[:, :8] + random.normal(size=(count, 8))).argmax(axis=1).astype("i1")
    va = np.tanh(x[:, :2] + random.normal(size=(count, 2))).astype("f4")
    au = (random.normal(size=(count, 12)) + np.resize(x, (count, 12)) > 0.5).astype("i1")
    expr[random.random(count) < 0.2], va[random.random(count) < 0.2] = -1, np.nan
    au[random.random(count) < 0.2], au[random.random((count, 12)) < 0.01] = -1, -1
    return TrainingRows(x, logits, {"expr": expr, "va": va, "au": au})


def inputs_of(rows, recipe):
    """Return inputs and labels of the labelled rows."""
    known = rows.labelled(recipe.branches, drop_partial_units=recipe.drop_partial_units)
    parts = {"embeddings": [rows.embeddings], "scores": [rows.logits], "both": [rows.embeddings, rows.logits]}
    x = np.concatenate([part[known] for part in parts[recipe.features]], axis=1, dtype=np.float64)
    return x, {branch: rows.labels[branch][known] for branch in recipe.branches}


@contextlib.contextmanager
def float64():
    """Let torch compute in float64."""
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextlib.contextmanager
def known_start():
    """Yield a list of the first weights of the layers that are made in this context: the same ones each time."""
    random, start = np.random.default_rng(7), []

    def fill(weight):
        start.append(random.uniform(-0.6, 0.6, weight.shape).astype(np.float32))
        with torch.no_grad():
            weight.copy_(torch.from_numpy(start[-1]))

    with mock.patch.object(torch.nn.init, "xavier_uniform_", fill):
        yield start


def outputs_of(fitted, recipe, rows):
    """Return the outputs of a fitted part for all rows, as the product predicts them."""
    tensors = {f"seed0.{name}": values for name, values in fitted.tensors.items()}
    task = "mtl" if len(recipe.branches) > 1 else recipe.branches[0]
    branches = {branch: BranchConfig(recipe.features, recipe.hidden_units) for branch in recipe.branches}
    head = MlpHead(HeadConfig(task, rows.embeddings.shape[1], rows.logits.shape[1], 1, branches), tensors)
    seconds, present = np.zeros(len(rows)), np.ones(len(rows), bool)
    return head.predict_sequence(SubjectSequence(rows.embeddings, rows.logits, present, seconds))


def largest(found, expected):
    """Return the largest difference of numbers or arrays."""
    return float(np.abs(np.asarray(found, np.float64) - np.asarray(expected, np.float64)).max())


def fit_difference(recipe: HeadRecipe, seed=3):
    """Fit in float64 with the product and as published; return the largest difference of any number."""
    train, validation = make_rows(150, 1), make_rows(90, 2)
    with float64(), known_start() as start:
        fitted = MlpHead.fit_part(train, validation, recipe, FitSettings(seed))
    mean = deviation = None
    x, labels = inputs_of(train, recipe)
    held_x, held_labels = inputs_of(validation, recipe)
    if recipe.standardize:
        known = train.labelled(recipe.branches, drop_partial_units=recipe.drop_partial_units)
        mean, deviation = (values.double().numpy() for values in moments(train, known, recipe.features))
        assert largest(mean, x.mean(axis=0)) < 1e-6 and largest(deviation, x.std(axis=0)) < 1e-6
        x, held_x = (x - mean) / deviation, (held_x - mean) / deviation
    network, history, epoch = published.fit(recipe, (x, labels), (held_x, held_labels), start, seed=seed)
    assert fitted.best_epoch == epoch and len(fitted.history) == len(history)
    found = [
        largest(list(mine.values()), list(own.values())) for mine, own in zip(fitted.history, history, strict=True)
    ]
    everything = outputs_of(fitted, recipe, validation)
    known = validation.labelled(recipe.branches, drop_partial_units=recipe.drop_partial_units)
    for branch, names in network.names.items():
        for number, name in enumerate(names):
            weight, bias = network.parameters[name].copy(), network.parameters[name + ".bias"].copy()
            if number == 0 and mean is not None:
                weight /= deviation
                bias -= weight @ mean
            found.append(largest(fitted.tensors[f"{branch}.{number}.weight"], weight))
            found.append(largest(fitted.tensors[f"{branch}.{number}.bias"], bias))
        expected = published.activate(branch, network.run(branch, held_x, {})[-1])
        found.append(largest(everything[branch][known], expected))
    return max(found)


def loss_difference(function, reference, logits, labels, weights=None, **options):
    """Return the largest difference of a loss and its gradient."""
    z = torch.tensor(logits, requires_grad=True)
    target = torch.tensor(labels, dtype=torch.int64 if labels.ndim == 1 else torch.float64)
    loss = function(z, target, **options)
    loss.backward()
    value, gradient = reference(logits, labels, *([] if weights is None else [weights]))
    assert np.abs(gradient).max() > 1e-3
    return max(largest(loss.item(), value), largest(z.grad.numpy(), gradient))


def expression_losses(masked, broadcast):
    random, rows = np.random.default_rng(0), make_rows(40, 5)
    # Some rows are saturated: probabilities below 1e-7.
    logits, weights = random.normal(size=(40, 8)) * 9, random.uniform(1, 20, 8)
    return loss_difference(
        losses.expression_loss,
        lambda z, y, w: published.expression_loss(z, y, w, masked=masked, broadcast=broadcast),
        logits,
        rows.labels["expr"],
        weights,
        class_weight=torch.tensor(weights),
        published_masking=masked,
        published_weighting=broadcast,
    )


def unit_losses(masked):
    random, rows = np.random.default_rng(1), make_rows(40, 6)
    logits, weights = random.normal(size=(40, 12)) * 9, random.uniform(0.5, 20, (2, 12))
    return loss_difference(
        losses.unit_loss,
        lambda z, y, w: published.unit_loss(z, y, w, masked=masked),
        logits,
        rows.labels["au"],
        weights,
        unit_weight=torch.tensor(weights),
        published_masking=masked,
    )


def value_losses(masked):
    labels = make_rows(40, 7).labels["va"].astype(np.float64)
    return loss_difference(
        lambda z, y: losses.value_loss(torch.tanh(z), y, published_masking=masked),
        lambda z, y: published.value_loss(z, y, masked=masked),
        np.random.default_rng(2).normal(size=(40, 2)),
        labels,
    )


def adam_steps():
    """Thirty steps with gradients of very different sizes, some of them below epsilon."""
    random = np.random.default_rng(3)
    mine = torch.tensor(random.normal(size=(4, 5)), requires_grad=True)
    own, scales = {"w": mine.detach().numpy().copy()}, 10.0 ** random.integers(-9, 3, (4, 5))
    ours, theirs = fitting.Adam([mine], learning_rate=0.01), published.Adam(0.01)
    for _ in range(30):
        gradient = random.normal(size=(4, 5)) * scales
        mine.grad = torch.tensor(gradient)
        ours.step()
        theirs.step(own, {"w": gradient})
    return largest(mine.detach().numpy(), own["w"])


def scores():
    rows, random = make_rows(300, 8), np.random.default_rng(4)
    outputs = {"expr": random.random((300, 8)), "va": random.uniform(-1, 1, (300, 2)), "au": random.random((300, 12))}
    found = metrics.score_branches(rows.labels, {branch: fitting.decide(branch, x) for branch, x in outputs.items()})
    differences, total = [], 0.0
    for branch, name in (("expr", "accuracy"), ("expr", "macro_f1"), ("va", "mean_ccc"), ("au", "mean_f1")):
        labels = rows.labels[branch]
        known = labels >= 0 if branch == "expr" else ~np.isnan(labels).any(axis=1) if branch == "va" else slice(None)
        expected = published.metric(name, labels[known], outputs[branch][known])
        differences.append(largest(found[name], expected))
        total += 0 if name == "accuracy" else expected
    return max(*differences, largest(found["p_mtl"], total))


def grid_of_thresholds():
    random, labels = np.random.default_rng(5), make_rows(300, 9).labels["au"]
    p = np.clip(0.5 * random.random((300, 12)) + 0.3 * (labels == 1), 0, 1).astype(np.float32)
    return largest(thresholds.grid_thresholds(labels, p), published.thresholds(labels, p.astype(np.float64)))


def interpolations(exchanged):
    random, values = np.random.default_rng(6), np.random.default_rng(7).normal(size=(60, 3)).astype(np.float32)
    present, direction = random.random(60) < 0.4, "published" if exchanged else "linear"
    found = interpolate_missing(values, present, direction=direction)
    return largest(found, published.interpolate(values.astype(np.float64), present, exchanged=exchanged))


def softmax_scores():
    rows = make_rows(200, 3)
    read = RowReader(rows, "scores", scores="probabilities", batch_rows=200).read(np.arange(200)).numpy()
    expected = np.array([published.softmax(row) for row in rows.logits.astype(np.float64)])
    return max(largest(read, expected), largest(to_scores(rows.logits, "probabilities"), expected))


def resized_faces():
    """Return the largest difference from OpenCV in grey levels, for sides of 1 to 700 px."""
    import cv2

    random, found = np.random.default_rng(0), []
    for height, width in [(448, 448), (224, 224), *random.integers(1, 701, (100, 2))]:
        face = random.integers(0, 256, (height, width, 3), np.uint8)
        found.append(largest(resize_to_square(face, 224, "opencv_bilinear"), cv2.resize(face, (224, 224))))
    return max(found)


def windows(method):
    found = []
    for count in (1, 3, 9, 60):
        values = np.random.default_rng(count).random((count, 3)).astype(np.float32)
        for half_width in (2, 7):
            ours = smooth(values, method=method, half_width_frames=half_width)
            expected = published.smooth(values.astype(np.float64), half_width, median=method == "median")
            found.append(largest(ours, expected))
    return max(found)


def small(recipe):
    """Return a recipe with small batches and few epochs, so that the last batch is incomplete."""
    units = 5 if recipe.hidden_units else 0
    return recipe.replace(batch_size=32, epochs=4, hidden_units=units)


def default_parts():
    parts = {branch: find_recipe("default").variant(branch).parts[0] for branch in ("expr", "va", "au")}
    # Without early stopping, the fits would not show that it stops.
    return {branch: dataclasses.replace(small(part), patience=2, epochs=6) for branch, part in parts.items()}


# Function or fit -> the largest difference of any of its numbers.
COMPARISONS = {
    "class weights of expressions": lambda: largest(
        losses.class_weights(make_rows(200, 3).labels["expr"]),
        published.class_weights(make_rows(200, 3).labels["expr"]),
    ),
    "weights of action units": lambda: largest(
        losses.unit_weights(make_rows(200, 3).labels["au"]),
        published.unit_weights(make_rows(200, 3).labels["au"], whole_rows=False),
    ),
    "loss of expressions, from logits": lambda: expression_losses(False, False),
    "loss of expressions, masked as published": lambda: expression_losses(True, False),
    "loss of expressions, masked and weighted as published": lambda: expression_losses(True, True),
    "loss of valence and arousal": lambda: value_losses(False),
    "loss of valence and arousal, masked as published": lambda: value_losses(True),
    "loss of action units, from logits": lambda: unit_losses(False),
    "loss of action units, masked as published": lambda: unit_losses(True),
    "Adam, 30 steps": adam_steps,
    "accuracy, F1, CCC, P_MTL": scores,
    "softmax of a MobileNet's logits": softmax_scores,
    "grid of thresholds": grid_of_thresholds,
    "interpolation, as in the paper": lambda: interpolations(False),
    "interpolation, as in the notebook": lambda: interpolations(True),
    "mean of 5 and 15 frames": lambda: windows("mean"),
    "median of 5 and 15 frames": lambda: windows("median"),
    **{f"fit of `paper`: {name}": lambda one=one: fit_difference(small(one)) for name, one in VARIANTS.items()},
    **{f"fit of `default`: {name}": lambda one=one: fit_difference(one) for name, one in default_parts().items()},
}


def main():
    """Print the table."""
    print("| function | largest difference |\n|---|---|")
    for name, compare in COMPARISONS.items():
        print(f"| {name} | {compare():.1e} |")
    if importlib.util.find_spec("cv2"):
        print(f"| faces resized for MobileNet, from OpenCV, in grey levels | {resized_faces():.1e} |")
    # The module imports this one.
    from tests.models.keras_parity import PACKAGES, keras_differences

    if PACKAGES.is_dir():
        with tempfile.TemporaryDirectory() as folder:
            for name, difference in keras_differences(Path(folder)).items():
                print(f"| fit of `paper` and of Keras, float32: {name} | {difference:.1e} |")


if __name__ == "__main__":
    main()
