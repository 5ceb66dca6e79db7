"""Class bias, gate, calibration and blends of heads on labelled photos of real faces, which have no time axis.

Usage: python tests/benchmarks/photo_decisions.py LABELS.csv CACHE [--limit PHOTOS] [--seeds 3]

Only photos of people are used that the bundled backbone was not trained on. Their outputs are cross-fitted: each person
is predicted by heads that neither saw the person nor chose their epochs with it. Decisions are tuned on folds of
people, and every person is decided by the rule, and the weights, of the other folds. CACHE keeps features and outputs.
Writes tests/benchmarks/results/photo_decisions.json and the tables of docs/recipes.md.
"""

import argparse
import functools
import json
import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from result_files import FOLDER, describe_machine

from data_contracts.challenge.pictures import read_pictures
from data_contracts.store.fingerprint import fingerprint
from data_contracts.vocabulary import EXPRESSIONS, FACE_FOUND
from flows.engine.run import Run
from models.backbones.registry import get_spec
from models.decisions.evaluation import (
    CALIBRATION_BINS,
    Interval,
    Metrics,
    bootstrap_intervals,
    count_rows,
    metrics_of_counts,
)
from models.decisions.postprocessing import PostProcessing, backbone_expressions
from models.decisions.recipes import ClassBias, PostProcessingRecipe
from models.decisions.smoothing import Smoothing
from models.decisions.subject_outputs import SubjectOutputs
from models.faces.crops import decode_jpeg
from models.heads.fitting import fit_seeds
from models.heads.rows import TrainingRows
from models.heads.sequences import SubjectSequence
from models.pretraining.recipes import get_pretraining
from models.recipes.registry import find_recipe
from models.tuning.blend_weights import choose_weights, hold_out
from models.tuning.folds import split_by_video
from models.tuning.tuning import Tuned, tune_postprocessing
from tasks.pretrain import crop_pictures
from tasks.pretrain.pretrain_backbone import PretrainingChoice, split_of
from tasks.worker_models import get_backbone

RESULTS, PAGE = FOLDER / "photo_decisions.json", Path(__file__).parents[2] / "docs" / "recipes.md"
BEGIN, END = "<!-- photos -->", "<!-- end of photos -->"
BACKBONES = ("emotion_lite0", "efficientnet_lite0")
FOLDS, BATCH = 5, 64
COVERAGES = (1.0, 0.8, 0.6, 0.4, 0.2)
# Names of press photographs end in four digits; the others are film stills.
_PRESS = re.compile(r"_\d{4}\.jpg$")
_PLAIN = PostProcessingRecipe(
    "photos", smoothings={"expr": (Smoothing(),)}, selection="held_out", shrinkage=True, calibration=True
)
_WIDE = ClassBias(2.0, 41, 3)
_LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


@dataclass(frozen=True)
class Photos:
    """Photos of people that the bundled backbone was not trained on, with a face and a label of an expression.

    Attributes:
        people: the person on each photo.
        labels: int8 [n], index in ``EXPRESSIONS``.
        is_press: bool [n], no film still.
        embeddings, logits: per backbone, float32 [n, D] and [n, C].
    """

    people: np.ndarray
    labels: np.ndarray
    is_press: np.ndarray
    embeddings: dict[str, np.ndarray]
    logits: dict[str, np.ndarray]

    def rows(self, backbone: str, chosen: np.ndarray) -> TrainingRows:
        """Return chosen photos as rows to fit on."""
        return TrainingRows(
            self.embeddings[backbone][chosen].astype(np.float16),
            self.logits[backbone][chosen],
            {"expr": self.labels[chosen]},
        )


def read_photos(labels: Path, cache: Path, limit: int | None) -> Photos:
    """Detect the labelled faces and compute their features, unless the cache has them."""
    choice = PretrainingChoice("efficientnet_lite0", get_pretraining("default", "emotion"))
    pictures = [
        one
        for one in read_pictures(labels).pictures
        if split_of({"picture": str(one.path), "identity": one.identity}, choice) == "validation"
    ][:limit]
    name = fingerprint(pictures=[str(one.path) for one in pictures])[:12]
    path = cache / f"features-{name}.npz"
    if not path.exists():
        crops, rows = _crops(cache, pictures, name)
        found: dict[str, Any] = {"row": rows}
        for backbone in BACKBONES:
            network = get_backbone(backbone, None, "bfloat16")
            batches = (crops[at : at + BATCH] for at in range(0, len(crops), BATCH))
            parts = [network.extract([decode_jpeg(one) for one in batch]) for batch in batches]
            found |= {f"{backbone}-{n}": np.concatenate(p) for n, p in zip("el", zip(*parts, strict=True), strict=True)}
        np.savez(path, **found)
    stored = np.load(path)
    kept = [pictures[row] for row in stored["row"].tolist()]
    has_label = np.array([one.expression in EXPRESSIONS for one in kept])
    return Photos(
        np.array([one.identity for one in kept])[has_label],
        np.array([EXPRESSIONS.index(one.expression) for one in kept if one.expression in EXPRESSIONS], np.int8),
        np.array([bool(_PRESS.search(one.path.name)) for one in kept])[has_label],
        {backbone: stored[f"{backbone}-e"][has_label] for backbone in BACKBONES},
        {backbone: stored[f"{backbone}-l"][has_label] for backbone in BACKBONES},
    )


def _crops(cache: Path, pictures: Sequence[Any], name: str) -> tuple[list[bytes], np.ndarray]:
    """Return the faces as JPEG, and the position of each in the list of pictures."""
    with Run(str(cache / "store")) as run:
        units = crop_pictures.plan_crop_pictures(pictures, collection=name, known={})
        run.stage("crop_pictures", units, crop_pictures.compute)
        crops, rows = [], []
        known = run.store.manifests("pictures", source=crop_pictures.source_of(), collection=name)
        for unit in units:
            columns = ["row", "status", "crop_jpeg"]
            for row in run.store.read_unit(unit.key, known[unit.key], columns=columns).to_pylist():
                if row["status"] == FACE_FOUND:
                    crops.append(row["crop_jpeg"])
                    rows.append(row["row"])
    return crops, np.array(rows)


def cross_fit(photos: Photos, backbone: str, seed: int, cache: Path) -> np.ndarray:
    """Return outputs float32 [n, 8] of all photos.

    Each fold of people is predicted by a head of recipe ``default`` that was fitted on three others, with the epoch
    that is best on the fifth.
    """
    path = cache / f"outputs-{backbone}-{seed}-{fingerprint(people=photos.people.tolist())[:12]}.npy"
    if path.exists():
        return np.asarray(np.load(path))
    splits = [scored for _, scored in split_by_video(photos.people.tolist(), FOLDS)]
    recipe = find_recipe("default").variant("expr").replace(seeds=1)
    outputs = np.full((len(photos.people), len(EXPRESSIONS)), np.nan, np.float32)
    for number, fold in enumerate(splits):
        of_epochs = splits[(number + 1) % len(splits)]
        train = np.setdiff1d(np.arange(len(photos.people)), np.concatenate([fold, of_epochs]))
        rows = [photos.rows(backbone, one) for one in (train, of_epochs)]
        head = fit_seeds(*rows, task="expr", recipe=recipe, first_seed=seed).head
        here = photos.rows(backbone, fold)
        sequence = SubjectSequence(here.embeddings, here.logits, np.ones(len(fold), bool), np.zeros(len(fold)))
        outputs[fold] = head.predict_sequence(sequence)["expr"]
    np.save(path, outputs)
    return outputs


def to_subjects(photos: Photos, outputs: np.ndarray, chosen: np.ndarray) -> list[SubjectOutputs]:
    """Return one subject per person, whose photos are its frames."""
    own = backbone_expressions(photos.logits["emotion_lite0"], tuple(get_spec("emotion_lite0").class_names))
    subjects = []
    for person in np.unique(photos.people[chosen]):
        at = np.flatnonzero(chosen & (photos.people == person))
        subjects.append(
            SubjectOutputs(
                str(person),
                {"expr": outputs[at]},
                np.ones(len(at), bool),
                np.arange(len(at)),
                {"expr": photos.labels[at]},
                backbone=own[at],
            )
        )
    return subjects


@dataclass(frozen=True)
class Scored:
    """A setting with the rule of each person, tuned without the person."""

    name: str
    subjects: list[SubjectOutputs]
    tuned: Tuned

    def rule_of(self, person: str) -> PostProcessing:
        """Return the rule that was tuned without a person."""
        return next(fold.postprocessing for fold in self.tuned.folds if person in fold.subjects)

    @functools.cached_property
    def decided(self) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Labels, decisions and calibrated probabilities [n, 8] of each person."""
        found = []
        for one in self.subjects:
            rule = self.rule_of(one.name)
            found.append((one.labels["expr"], one.decide(rule)["expr"], one.smooth(rule)["expr"]))
        return found

    @functools.cached_property
    def counts(self) -> np.ndarray:
        """Rows per label and decision of each person, [V, 8, 8]."""
        return np.stack([count_rows("expr", labels, decisions) for labels, decisions, _ in self.decided])


def score(name: str, members: Sequence[list[SubjectOutputs]], recipe: PostProcessingRecipe) -> Scored:
    """Tune a head, or a blend of several with weights of the same folds."""
    if len(members) == 1:
        return Scored(name, members[0], tune_postprocessing(members[0], task="expr", recipe=recipe))
    by_person = [list(one) for one in zip(*members, strict=True)]
    weights = choose_weights(by_person, task="expr", recipe=recipe)
    of_fold = {person: fold.weights["expr"] for fold in weights.folds for person in fold.subjects}
    subjects = []
    for of_members in by_person:
        first = of_members[0]
        mean = sum(w * one.outputs["expr"] for w, one in zip(of_fold[first.name], of_members, strict=True))
        subjects.append(replace(first, outputs={"expr": np.asarray(mean, np.float32)}))
    tuned = tune_postprocessing(subjects, task="expr", recipe=recipe)
    described = ", ".join(f"{one:.2f}" for one in weights.weights["expr"])
    return Scored(f"{name} (weights {described})", subjects, hold_out(tuned, by_person, weights, recipe=recipe))


def settings(photos: Photos, chosen: np.ndarray, seeds: int, cache: Path) -> list[Scored]:
    """Return all settings; the first two are what the others are compared with."""
    fits = {b: [cross_fit(photos, b, seed, cache) for seed in range(seeds)] for b in BACKBONES}
    heads = {b: to_subjects(photos, np.mean(fits[b], axis=0), chosen) for b in BACKBONES}
    one_seed = [to_subjects(photos, one, chosen) for one in fits["emotion_lite0"]]
    own = [replace(one, outputs={"expr": one.backbone}) for one in heads["emotion_lite0"] if one.backbone is not None]
    head, other, narrow = heads["emotion_lite0"], heads["efficientnet_lite0"], ClassBias()
    in_sample = _PLAIN.replace(class_bias=_WIDE, selection="in_sample", shrinkage=False)
    of_seeds = [score("blend of seeds", one_seed, _PLAIN)] if seeds > 1 else []
    return [
        score("backbone alone", [own], _PLAIN),
        score("head", [head], _PLAIN),
        score("head, class bias of recipe `default`", [head], _PLAIN.replace(class_bias=narrow)),
        score("head, class bias +-2, 41 steps, shrunk", [head], _PLAIN.replace(class_bias=_WIDE)),
        score("head, class bias +-2, chosen in-sample", [head], in_sample),
        score("head, gate", [head], _PLAIN.replace(gate_levels=_LEVELS)),
        score("head, gate and class bias", [head], _PLAIN.replace(gate_levels=_LEVELS, class_bias=narrow)),
        score("head on `efficientnet_lite0`", [other], _PLAIN),
        *of_seeds,
        score("blend of both backbones", [head, other], _PLAIN),
        score("blend of head and backbone alone", [head, own], _PLAIN),
        score("blend of all three", [head, other, own], _PLAIN),
        score("blend of all three, class bias", [head, other, own], _PLAIN.replace(class_bias=narrow)),
    ]


def interval_of(counts: np.ndarray, metric: Callable[[np.ndarray], np.ndarray]) -> list[float | None]:
    """Return a metric of counts [V, ...] of people, and its interval."""
    found: Interval = bootstrap_intervals(counts, lambda sums: {"value": metric(sums)})["value"]
    return [found.value, found.low, found.high]


def _f1(sums: np.ndarray) -> np.ndarray:
    return np.asarray(metrics_of_counts("expr", sums)["macro_f1"])


def describe(one: Scored, reference: Scored) -> dict[str, Any]:
    """Return the scores of a setting, and the difference to the head alone, for JSON."""
    metrics: Metrics = metrics_of_counts("expr", one.counts.sum(axis=0)[None])
    pairs = np.stack([one.counts, reference.counts], axis=1)
    # A gate decides by probabilities of the backbone, which are not those of the head.
    has_gate = one.tuned.postprocessing.has_gate
    errors = one.tuned.calibration["expr"]
    return {
        "name": one.name,
        "in_sample": one.tuned.tuned["macro_f1"],
        "held_out": interval_of(one.counts, _f1),
        "difference": interval_of(pairs, lambda sums: _f1(sums[:, 0]) - _f1(sums[:, 1])),
        "accuracy": float(metrics["accuracy"][0]),
        "calibration_error_before": None if has_gate else errors.before,
        "calibration_error": None if has_gate else interval_of(_bins(one), _calibration_error),
        "coverage": [_at_coverage(one, share) for share in COVERAGES],
    }


def _bins(one: Scored) -> np.ndarray:
    """Return for each person the rows, sum of probabilities and right decisions in each bin, [V, bins, 3]."""
    found = []
    for labels, decisions, probability in one.decided:
        sure = probability[np.arange(len(decisions)), decisions]
        number = np.minimum((sure * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
        weights = (np.ones(len(sure)), sure, labels == decisions)
        found.append(np.stack([np.bincount(number, weight, CALIBRATION_BINS) for weight in weights], axis=1))
    return np.stack(found)


def _calibration_error(sums: np.ndarray) -> np.ndarray:
    return np.asarray(np.abs(sums[..., 1] - sums[..., 2]).sum(axis=-1) / sums[..., 0].sum(axis=-1))


def _at_coverage(one: Scored, share: float) -> dict[str, float]:
    """Return macro F1 and accuracy of the share of photos with the highest probabilities of their decisions."""
    labels, decisions, probability = (np.concatenate(part) for part in zip(*one.decided, strict=True))
    sure = probability[np.arange(len(decisions)), decisions]
    level = float(np.quantile(sure, 1 - share))
    found = metrics_of_counts("expr", count_rows("expr", labels[sure >= level], decisions[sure >= level]))
    return {"share": share, "level": level} | {name: float(found[name]) for name in ("macro_f1", "accuracy")}


def tables(content: dict[str, Any]) -> list[str]:
    """Return the tables of the page."""
    lines = []
    for name, population in content["populations"].items():
        classes = ", ".join(f"{label} {count:,}" for label, count in population["labels"].items() if count)
        rows = population["settings"]
        title = f"{name}: {population['photos']:,} photos of {population['people']:,} people ({classes})."
        lines += [*textwrap.wrap(title, 120), ""]
        lines += ["| setting | in-sample | held-out | interval | difference to the head | interval | accuracy |"]
        lines += ["|---|---|---|---|---|---|---|"]
        for row in rows:
            (value, *ends), (gain, least, most) = row["held_out"], row["difference"]
            difference = "| |" if row["name"] == "head" else f"{gain:+.3f} | {least:+.3f} to {most:+.3f} |"
            ends = " to ".join(f"{end:.3f}" for end in ends)
            scores = f"{row['in_sample']:.3f} | {value:.3f} | {ends} | {difference} {row['accuracy']:.3f}"
            lines.append(f"| {row['name']} | {scores} |")
        lines += [
            "",
            "| setting | calibration error before | after | interval |"
            + "".join(f" {share:.0%} |" for share in COVERAGES),
        ]
        lines += ["|---|---|---|---|" + "---|" * len(COVERAGES)]
        for row in rows:
            if row["calibration_error"] is not None and "class bias" not in row["name"]:
                error, low, high = row["calibration_error"]
                cells = [f"{one['accuracy']:.3f} ({one['macro_f1']:.3f})" for one in row["coverage"]]
                errors = f"{row['calibration_error_before']:.3f} | {error:.3f} | {low:.3f} to {high:.3f}"
                lines.append(f"| {row['name']} | {errors} | {' | '.join(cells)} |")
        lines.append("")
    return lines


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", type=Path)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--limit", type=int, help="read only the first photos, for a trial; writes no results")
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    given.cache.mkdir(parents=True, exist_ok=True)
    photos = read_photos(given.labels, given.cache, given.limit)
    content: dict[str, Any] = {"machine": describe_machine(), "seeds": given.seeds, "populations": {}}
    for name, chosen in (
        ("People that the backbone was not trained on", np.ones(len(photos.people), bool)),
        ("The same without film stills", photos.is_press),
    ):
        found = settings(photos, chosen, given.seeds, given.cache)
        counts = np.bincount(photos.labels[chosen], minlength=len(EXPRESSIONS)).tolist()
        content["populations"][name] = {
            "photos": int(chosen.sum()),
            "people": len(np.unique(photos.people[chosen])),
            "labels": dict(zip(EXPRESSIONS, counts, strict=True)),
            "settings": [describe(one, found[1]) for one in found],
        }
        print("\n".join(tables(content)), flush=True)
        if given.limit is None:
            RESULTS.write_text(json.dumps(content, indent=1) + "\n")
            before, rest = PAGE.read_text().split(BEGIN)
            PAGE.write_text("\n".join([before + BEGIN, "", *tables(content), END]) + rest.split(END)[1])


if __name__ == "__main__":
    main()
