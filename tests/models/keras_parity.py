"""Heads of recipe ``paper`` and heads that Keras fits as the authors' notebook does: same start, same order of rows."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from models.heads.head import FitSettings
from models.heads.mlp import MlpHead
from tests.models.parity import VARIANTS, inputs_of, known_start, largest, make_rows, outputs_of, small

PROGRAM = Path(__file__).parent / "keras_heads" / "fit_heads.py"
PACKAGES = Path(sys.prefix) / "keras-heads"
TRAIN, HELD = make_rows(150, 1), make_rows(90, 2)
SEED = 3


def recipe_of(name):
    return small(VARIANTS[name]).replace(epochs=6)


def case_of(name, start):
    """Return what the program needs for a variant; unlabelled rows get label 0 and mask 0, as in the notebook."""
    recipe = recipe_of(name)
    case = {f"start{number}": weight for number, weight in enumerate(start)}
    for prefix, data in (("", TRAIN), ("held_", HELD)):
        case[f"{prefix}x"], labels = inputs_of(data, recipe)
        for branch, values in labels.items():
            known = values >= 0 if branch == "expr" else ~np.isnan(values) if branch == "va" else values >= 0
            known = known if branch == "expr" else known.all(axis=1)
            mask = known if branch == "expr" else known[:, None]
            case[f"{prefix}{branch}"] = np.where(mask, values, 0)
            case[f"{prefix}{branch}_mask"] = known.astype("f4")
    random = np.random.default_rng(SEED)
    return case | {
        "task": "mtl" if len(recipe.branches) > 1 else recipe.branches[0],
        "hidden": recipe.hidden_units,
        "l2": recipe.l2,
        "batch_size": recipe.batch_size,
        "checkpoint": f"val_{recipe.checkpoint}",
        "orders": np.stack([random.permutation(len(case["x"])) for _ in range(recipe.epochs)]),
    }


def start_of(name):
    """Return the first weights of the layers."""
    with known_start() as start:
        MlpHead.fit_part(TRAIN, None, recipe_of(name).replace(epochs=1), FitSettings(SEED))
    return start


def keras_differences(folder):
    """Fit all variants with both; return the largest difference of outputs and, relative, of checkpoints, by variant.

    ``folder``: for the files of the program.
    """
    for name in VARIANTS:
        np.savez(folder / f"{name}.npz", **case_of(name, start_of(name)))
    environment = os.environ | {"PYTHONPATH": str(PACKAGES), "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, PROGRAM, folder]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return {name: difference_from_keras(name, folder / f"{name}.outputs.npz") for name in VARIANTS}


def difference_from_keras(name, path):
    recipe = recipe_of(name)
    with np.load(path) as file:
        expected = dict(file)
    with known_start():
        fitted = MlpHead.fit_part(TRAIN, HELD, recipe, FitSettings(SEED))
    checkpoints = np.array([entry[recipe.checkpoint] for entry in fitted.history])
    found = [largest(checkpoints / expected["checkpoints"], 1)]
    known = HELD.labelled(recipe.branches, drop_partial_units=recipe.drop_partial_units)
    outputs = outputs_of(fitted, recipe, HELD)
    for number, branch in enumerate(recipe.branches):
        found.append(largest(outputs[branch][known], expected[f"output{number}"]))
    return max(found)
