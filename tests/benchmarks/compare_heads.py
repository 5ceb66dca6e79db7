"""Compare expression heads on the features of a store: linear and hidden, embeddings and scores, and two baselines.

    python tests/benchmarks/compare_heads.py STORE ANNOTATIONS

ANNOTATIONS contains EXPR_Classification_Challenge. The store contains features of its subjects (``affwild2 extract``).
Prints macro F1 over the classes of the validation set, accuracy, and the F1 of each class.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from data_contracts.challenge.annotations import read_annotations
from data_contracts.store.store import Store
from data_contracts.vocabulary import EXPRESSIONS
from models.faces.crops import decode_jpeg
from models.heads.fitting import fit_seeds
from models.heads.metrics import score_branch
from models.heads.rows import TrainingRows
from models.recipes.registry import find_recipe
from tasks.extract.embed_faces import subjects_of_source
from tasks.fit.subject_features import find_features
from tasks.fit.training_rows import gather_rows

PIXELS = 16


def make_pixel_rows(store: Store, source: str, tables: dict, rows: TrainingRows) -> TrainingRows:
    """Return the same rows with small grey pictures instead of embeddings."""
    pictures = {}
    wanted = {subject for table in tables.values() for subject in table["subject"].to_pylist()}
    for faces in subjects_of_source(store, source):
        for key, manifest in faces.segments if faces.subject in wanted else ():
            for row in store.read_unit(key, manifest, columns=["frame", "crop_jpeg"]).to_pylist():
                if row["crop_jpeg"]:
                    image = Image.fromarray(decode_jpeg(row["crop_jpeg"])).convert("L").resize((PIXELS, PIXELS))
                    pictures[faces.subject, row["frame"]] = np.asarray(image, np.float32).ravel() / 255
    order = []
    for table in tables.values():
        labelled = [
            r for r in table.select(["subject", "frame", "expression"]).to_pylist() if r["expression"] is not None
        ]
        order += sorted((r["subject"], r["frame"]) for r in labelled if (r["subject"], r["frame"]) in pictures)
    assert len(order) == len(rows)
    return TrainingRows(np.stack([pictures[at] for at in order]), rows.logits, rows.labels)


def print_scores(name: str, scores: dict[str, float], present: list[int], spread: str = "") -> None:
    per_class = [scores[f"f1_{EXPRESSIONS[index]}"] for index in present]
    cells = " ".join(f"{value:9.3f}" for value in per_class)
    print(f"{name:28} {np.mean(per_class):8.3f} {scores['accuracy']:8.3f} {cells}  {spread}", flush=True)


def main(store_url: str, annotations: str) -> None:
    torch.set_num_threads(2)
    store, folder = Store(store_url), Path(annotations) / "EXPR_Classification_Challenge"
    variant = find_features(store)
    sets = {
        name: {name: read_annotations(folder, task="expr", set_name=name).table} for name in ("train", "validation")
    }
    with tempfile.TemporaryDirectory() as scratch:
        rows = {}
        for name, tables in sets.items():
            Path(scratch, name).mkdir()
            rows[name], _ = gather_rows(store, variant, tables, task="expr", folder=Path(scratch, name))
        labels = rows["validation"].labels["expr"]
        present = np.unique(labels).tolist()
        print(f"{len(rows['train'])} training rows, {len(labels)} validation rows; seeds: lowest..highest macro F1")
        print(f"{'':28} {'macro F1':>8} {'accuracy':>8} " + " ".join(f"{EXPRESSIONS[i]:>9}" for i in present))
        majority = np.full(len(labels), np.bincount(rows["train"].labels["expr"]).argmax())
        print_scores("majority class", score_branch("expr", labels, majority), present)
        pixels = {n: make_pixel_rows(store, variant.source, sets[n], rows[n]) for n in sets}
        for kind, data in (("pixels", pixels), ("", rows)):
            for recipe_name in ("default", "paper"):
                for features in ("embeddings",) if kind else ("embeddings", "scores", "both"):
                    for hidden in (0, 128):
                        recipe = find_recipe(recipe_name).variant("expr", hidden_units=hidden)
                        recipe = recipe.replace(features=features, seeds=3)
                        fitted = fit_seeds(data["train"], data["validation"], task="expr", recipe=recipe)
                        scale = 8 / len(present)
                        alone = [seed["macro_f1"] * scale for seed in fitted.seed_figures]
                        name = f"{recipe_name} {kind or features} {'hidden' if hidden else 'linear'}"
                        print_scores(name, fitted.figures, present, f"{min(alone):.3f}..{max(alone):.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
