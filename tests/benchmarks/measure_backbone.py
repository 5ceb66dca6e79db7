"""Scores of an emotion backbone on unseen people, with intervals, compared with a generic backbone and a head.

    python tests/benchmarks/measure_backbone.py STORE [BACKBONE]

STORE contains the pictures and the backbone of ``affwild2 pretrain emotion``; BACKBONE is the beginning of its name.
Prints recall and F1 per class, accuracy, and balanced accuracy over the five classes with enough pictures, for grey
pictures, colour pictures, and all pictures, with 95 % intervals from a bootstrap over people. Pictures of classes that
the backbone does not know count as errors. The comparison is EfficientNet-Lite0 with ImageNet weights and a linear head
on its embeddings, fitted on the grey training pictures.
"""

import sys
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import confusion_matrix
from sklearn.preprocessing import StandardScaler

from data_contracts.store.store import Store
from data_contracts.vocabulary import FACE_FOUND
from models.backbones.network import load_backbone
from models.engines.devices import keep_freed_memory
from models.faces.crops import decode_jpeg
from models.pretraining.recipes import get_pretraining
from tasks.backbones import WEIGHTS_FILE, find_trained_backbone
from tasks.pretrain.pretrain_backbone import PretrainingChoice, split_of

FIVE = ("Neutral", "Happiness", "Surprise", "Sadness", "Anger")
OTHERS = {"Disgust", "Fear"}
_COLOUR_LEVELS = 6.0
_DRAWS = 2000


def read_pictures(store: Store) -> dict[str, list[dict]]:
    """Read rows with a face and an expression, by side of the split."""
    choice = PretrainingChoice("", get_pretraining("default", "emotion"))
    sides: dict[str, list[dict]] = {"train": [], "validation": []}
    for key, manifest in sorted(store.manifests("pictures").items()):
        for row in store.read_unit(key, manifest).to_pylist():
            if row["status"] == FACE_FOUND and row["expression"] in OTHERS.union(FIVE):
                sides[split_of(row, choice)].append(row)
    return sides


def compute_scores(matrix: np.ndarray, names: list[str]) -> dict[str, float]:
    counts = matrix.sum(axis=1)
    recall = matrix.diagonal() / np.maximum(counts, 1)
    five = [names.index(name) for name in FIVE]
    inside = matrix[five]
    return {
        "accuracy, all classes": matrix.diagonal().sum() / counts.sum(),
        "accuracy, five classes": matrix.diagonal()[five].sum() / inside.sum(),
        "balanced accuracy, five classes": recall[five].mean(),
        **{f"recall {name}": recall[at] for at, name in enumerate(names) if counts[at]},
        **{
            f"F1 {name}": 2 * matrix[at, at] / max(counts[at] + matrix[:, at].sum(), 1)
            for at, name in enumerate(names)
            if counts[at]
        },
    }


def print_scores(title: str, labels: np.ndarray, decided: np.ndarray, people: np.ndarray, names: list[str]) -> None:
    random = np.random.default_rng(0)
    groups = [np.flatnonzero(people == person) for person in np.unique(people)]
    matrices = np.stack([confusion_matrix(labels[g], decided[g], labels=range(len(names))) for g in groups])
    draws: dict[str, list[float]] = {}
    for _ in range(_DRAWS):
        drawn = matrices[random.integers(0, len(groups), len(groups))].sum(axis=0)
        for name, value in compute_scores(drawn, names).items():
            draws.setdefault(name, []).append(value)
    print(f"\n{title}: {len(labels):,} pictures of {len(groups):,} people")
    counts = np.bincount(labels, minlength=len(names))
    for name, value in compute_scores(matrices.sum(axis=0), names).items():
        low, high = np.percentile(draws[name], [2.5, 97.5])
        of = name.split(" ", 1)[1]
        note = f"   {counts[names.index(of)]} pictures" if of in names else ""
        print(f"  {name:34} {value:.3f}  [{low:.3f}, {high:.3f}]{note}")
    print("  rows: truth, columns: decision;", ", ".join(names))
    print("  " + str(matrices.sum(axis=0)).replace("\n", "\n  "))


def is_in_colour(image: np.ndarray) -> bool:
    """Return whether red and blue differ by more than compression causes."""
    return float(np.abs(image[..., 0].astype(np.int16) - image[..., 2]).mean()) > _COLOUR_LEVELS


def main(store_url: str, name: str = "") -> None:
    keep_freed_memory()
    store = Store(store_url)
    bundle = find_trained_backbone(store, name or store.list_folder("backbones")[0])
    emotion = load_backbone("efficientnet_lite0", weights=Path(store.locate(f"{bundle.folder}/{WEIGHTS_FILE}")))
    sides = read_pictures(store)
    names = [*emotion.class_names, *sorted(OTHERS - set(emotion.class_names))]
    labels = {side: np.array([names.index(row["expression"]) for row in rows]) for side, rows in sides.items()}
    people = {side: np.array([row["identity"] or row["picture"] for row in rows]) for side, rows in sides.items()}
    assert not set(people["train"]) & set(people["validation"]), "a person is on both sides of the split"
    images = {side: [decode_jpeg(row["crop_jpeg"]) for row in rows] for side, rows in sides.items()}
    colour = {side: np.array([is_in_colour(image) for image in images[side]]) for side in images}
    decided = {bundle.name: emotion.extract(images["validation"])[1].argmax(axis=1)}
    generic = load_backbone("efficientnet_lite0")
    features = {side: generic.extract(images[side])[0] for side in images}
    used = np.isin(labels["train"], range(len(emotion.class_names))) & ~colour["train"]
    scale = StandardScaler().fit(features["train"][used])
    for weight in (None, "balanced"):
        head = LogisticRegression(C=1e-3, max_iter=2000, class_weight=weight)
        head.fit(scale.transform(features["train"][used]), labels["train"][used])
        title = f"ImageNet features, linear head, {weight or 'plain'}"
        decided[title] = head.predict(scale.transform(features["validation"]))
    parts = {
        "grey": ~colour["validation"],
        "colour": colour["validation"],
        "all": np.ones(len(labels["validation"]), bool),
    }
    for title, decisions in decided.items():
        for part, rows in parts.items():
            print_scores(
                f"{title}, {part}", labels["validation"][rows], decisions[rows], people["validation"][rows], names
            )


if __name__ == "__main__":
    main(*sys.argv[1:])
