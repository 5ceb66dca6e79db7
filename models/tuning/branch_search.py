"""Search the rule of one branch: fits without some folds of videos, their scores on those folds, and the choice."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np

from data_contracts.vocabulary import ACTION_UNITS, EXPRESSIONS, BranchName
from models.decisions.evaluation import count_rows, f1_of_thresholds, metrics_of_counts
from models.decisions.postprocessing import BranchRule, gated_expressions
from models.decisions.recipes import PostProcessingRecipe
from models.decisions.smoothing import Smoothing, from_logits, interpolate_missing, smooth_outputs, to_logits
from models.decisions.subject_outputs import SubjectOutputs
from models.decisions.thresholds import GRID, grid_thresholds, optimal_thresholds
from models.engines.progress import report_progress
from models.heads.metrics import MAIN_METRIC, has_label
from models.tuning.calibration import fit_scaling, with_scaling
from models.tuning.class_bias import fit_class_bias, scores_of_bias
from models.tuning.folds import jackknife_variance, shrink

_MIN_GAIN = 1e-6
_TINY = 1e-7
# Numbers of folds that a fit does not see.
LeftOut = frozenset[int]
NONE: LeftOut = frozenset()


class Candidate(NamedTuple):
    """One setting that tuning tried, and its score on the same subjects.

    Attributes:
        step: ``smoothing``; ``class bias``: one bias differs from the chosen ones, with the chosen smoothing; ``gate``:
            a level, with the class bias that is best for it; or ``threshold``: of one action unit.
        smoothing: of the outputs.
        name: the expression or action unit whose bias or threshold is ``value``, or whose smoothing it is; else None.
        value: class bias, level or threshold; None for ``smoothing``.
        score: main metric of the branch; with the name of an action unit, its F1.
    """

    branch: BranchName
    step: Literal["smoothing", "class bias", "gate", "threshold"]
    smoothing: Smoothing
    name: str | None
    value: float | None
    score: float


class BranchRows:
    """Labelled rows of one branch, ordered by folds, with their outputs for any smoothing.

    Outputs are computed when they are asked for, and those of two smoothings are kept: all of them at once would take
    21 MB per smoothing for the action units of Aff-Wild2.

    Attributes:
        labels: of all rows, [n] or [n, K].
        folds: rows of each fold; one fold without a second video.
    """

    def __init__(
        self,
        subjects: Sequence[SubjectOutputs],
        folds: Sequence[np.ndarray],
        branch: BranchName,
        recipe: PostProcessingRecipe,
    ) -> None:
        self.branch, self._kept = branch, dict[tuple[str, Smoothing], np.ndarray]()
        self._subjects = [subjects[at] for fold in folds for at in fold]
        known = [has_label(branch, one.labels[branch]) for one in self._subjects]
        self._frames = [one.labelled_frame[rows] for one, rows in zip(self._subjects, known, strict=True)]
        self.labels = np.concatenate(
            [one.labels[branch][rows] for one, rows in zip(self._subjects, known, strict=True)]
        )
        ends = np.cumsum([0, *map(len, self._frames)])
        subject_ends = np.cumsum([0, *map(len, folds)])
        self.folds = [slice(ends[a], ends[b]) for a, b in itertools.pairwise(subject_ends)]
        self._direction = recipe.interpolation

    def values(self, smoothing: Smoothing) -> np.ndarray:
        """Return the smoothed outputs float32 [n, K]."""
        return self._get("outputs", smoothing)

    def backbone(self, smoothing: Smoothing) -> np.ndarray:
        """Return the smoothed expressions of the backbone, float32 [n, 8]."""
        return self._get("backbone", smoothing)

    def logarithms(self, smoothing: Smoothing) -> np.ndarray:
        """Return the logarithms of the smoothed outputs as ``BranchRule.decide`` takes them, float32 [n, K]."""
        return self._get("logarithms", smoothing)

    def smoothed(self, rule: BranchRule) -> np.ndarray:
        """Return the smoothed and calibrated outputs of a rule, float32 [n, K]."""
        if len(rule.smoothings) == 1:
            values = self.values(rule.smoothings[0])
        else:
            values = np.empty((len(self.labels), len(rule.smoothings)), np.float32)
            for smoothing in dict.fromkeys(rule.smoothings):
                units = [at for at, one in enumerate(rule.smoothings) if one == smoothing]
                values[:, units] = self.values(smoothing)[:, units]
        return rule.scaling.apply(self.branch, values) if rule.scaling else values

    def decide(self, rule: BranchRule) -> np.ndarray:
        """Return the decisions of a rule for all rows."""
        backbone = self.backbone(rule.smoothings[0]) if rule.gate_level is not None else None
        return rule.decide(self.branch, self.smoothed(rule), backbone)

    def take(self, values: np.ndarray, left_out: LeftOut) -> np.ndarray:
        """Return the values of the rows of all other folds."""
        return np.concatenate([values[rows] for number, rows in enumerate(self.folds) if number not in left_out])

    def count(self, decisions: np.ndarray) -> np.ndarray:
        """Return the counts of each fold, [F, ...], as ``count_rows`` does."""
        return np.stack([count_rows(self.branch, self.labels[rows], decisions[rows]) for rows in self.folds])

    def _get(self, what: Literal["outputs", "backbone", "logarithms"], smoothing: Smoothing) -> np.ndarray:
        key = what, smoothing
        if key not in self._kept:
            if what == "logarithms":
                found = np.log(np.maximum(np.nan_to_num(self.values(smoothing)), np.float32(_TINY)))
            else:
                found = np.concatenate(
                    [
                        self._smooth(one, what, smoothing)[at]
                        for one, at in zip(self._subjects, self._frames, strict=True)
                    ]
                )
            for old in [one for one in self._kept if one[0] == what][:-1]:
                del self._kept[old]
            self._kept[key] = found
        return self._kept[key]

    def _smooth(self, subject: SubjectOutputs, what: str, smoothing: Smoothing) -> np.ndarray:
        values = subject.outputs[self.branch] if what == "outputs" else subject.backbone
        if values is None:
            raise ValueError(f"{subject.name}: expected the expressions of the backbone, which the gate needs")
        filled = interpolate_missing(values, subject.present, direction=self._direction)
        return smooth_outputs(self.branch, filled, smoothing, frames_per_second=subject.frames_per_second)


@dataclass(frozen=True)
class Option:
    """What is chosen besides fitted values: the smoothing, whether there is a class bias, and the level of the gate."""

    smoothing: Smoothing
    is_biased: bool = False
    gate_level: float | None = None


class BranchSearch:
    """The search for one branch. This class serves ``va``, which has nothing to fit; subclasses serve the others.

    A fit does not see the folds that are left out. To tune on all folds but ``outer``, options are compared by the
    scores of fits that leave out one more fold, on that fold, all folds pooled (``selection="held_out"``); or by the
    score on the rows of the fit (``in_sample``).
    """

    def __init__(self, rows: BranchRows, recipe: PostProcessingRecipe) -> None:
        self.rows, self.recipe, self.branch = rows, recipe, rows.branch
        self.smoothings = recipe.smoothings_of(rows.branch)
        self._fits = dict[tuple[Option, LeftOut], np.ndarray]()
        self._counts = dict[tuple[Option, LeftOut], np.ndarray]()

    def scan(self) -> None:
        """Count the decisions of all options, one smoothing after the other."""
        folds = range(len(self.rows.folds))
        outer = [NONE, *(frozenset({one}) for one in folds)] if len(folds) > 1 else [NONE]
        for number, smoothing in enumerate(self.smoothings, 1):
            report_progress("tuning {}: smoothing {} of {}", self.branch, number, len(self.smoothings))
            for option in self.options(smoothing):
                for left_out in outer:
                    self._score(option, left_out)

    def options(self, smoothing: Smoothing) -> list[Option]:
        """Return the options with this smoothing."""
        return [Option(smoothing)]

    def choose(self, left_out: LeftOut = NONE) -> BranchRule:
        """Return the rule that is tuned on all folds but these."""
        return self.calibrated(self.rule(self._best(left_out), left_out), left_out)

    def rule(self, option: Option, left_out: LeftOut = NONE) -> BranchRule:
        """Return the rule of an option with fitted values, which are shrunk if the recipe says so."""
        return BranchRule((option.smoothing,))

    def calibrated(self, rule: BranchRule, left_out: LeftOut) -> BranchRule:
        """Return the rule with calibrated probabilities, if the recipe says so."""
        if not self.recipe.calibration:
            return rule
        labels, smoothed = (
            self.rows.take(self.rows.labels, left_out),
            self.rows.take(self.rows.smoothed(rule), left_out),
        )
        scaling = fit_scaling(self.branch, labels, smoothed)
        return with_scaling(self.branch, rule, scaling) if scaling else rule

    def candidates(self, rule: BranchRule) -> list[Candidate]:
        """Return what was tried on all folds, with in-sample scores; the rule is that of all folds."""
        return [
            Candidate(self.branch, "smoothing", one, None, None, self._in_sample(self.options(one)[0], NONE))
            for one in self.smoothings
        ]

    def inner_folds(self, left_out: LeftOut) -> list[int]:
        """Return the folds that fits for a choice leave out one after the other; none if there are fewer than two."""
        others = [number for number in range(len(self.rows.folds)) if number not in left_out]
        return others if len(others) > 1 else []

    def replicates(self, option: Option, left_out: LeftOut) -> np.ndarray | None:
        """Return the fitted values without one more fold each; None if values are not to be shrunk."""
        folds = self.inner_folds(left_out) if self.recipe.shrinkage else []
        return np.stack([self.fit(option, left_out | {one}) for one in folds]) if folds else None

    def fit(self, option: Option, left_out: LeftOut) -> np.ndarray:
        """Return the values that are fitted for an option on all folds but these."""
        key = option, left_out
        if key not in self._fits:
            self._fits[key] = self._fit(option, left_out)
        return self._fits[key]

    def _fit(self, option: Option, left_out: LeftOut) -> np.ndarray:
        return np.zeros(0)

    def _decide(self, option: Option, left_out: LeftOut) -> np.ndarray:
        return BranchRule().decide(self.branch, self.rows.values(option.smoothing))

    def _count(self, option: Option, left_out: LeftOut) -> np.ndarray:
        key = option, left_out
        if key not in self._counts:
            self._counts[key] = self.rows.count(self._decide(option, left_out))
        return self._counts[key]

    def inner_counts(self, option: Option, left_out: LeftOut) -> np.ndarray:
        """Return the counts [f, ...] by which options are compared, of each fold that is not left out."""
        if self.recipe.selection == "held_out" and (folds := self.inner_folds(left_out)):
            return np.stack([self._count(option, left_out | {one})[one] for one in folds])
        counts = self._count(option, left_out)
        return counts[[number for number in range(len(counts)) if number not in left_out]]

    def _score(self, option: Option, left_out: LeftOut) -> float:
        return self._metric(self.inner_counts(option, left_out).sum(axis=0))

    def _in_sample(self, option: Option, left_out: LeftOut) -> float:
        counts = self._count(option, left_out)
        return self._metric(np.delete(counts, sorted(left_out), axis=0).sum(axis=0))

    def _metric(self, counts: np.ndarray) -> float:
        return float(metrics_of_counts(self.branch, counts)[MAIN_METRIC[self.branch]])

    def _best(self, left_out: LeftOut) -> Option:
        return self._first_best((o for one in self.smoothings for o in self.options(one)), left_out)

    def _first_best(self, options: Iterable[Option], left_out: LeftOut) -> Option:
        found, best = Option(Smoothing()), -np.inf
        for option in options:
            if (score := self._score(option, left_out)) > best + _MIN_GAIN:
                found, best = option, score
        return found


class ExpressionSearch(BranchSearch):
    """The search for expressions: smoothing and class bias together, then the level of the gate."""

    def options(self, smoothing: Smoothing) -> list[Option]:
        return [Option(smoothing), *([Option(smoothing, True)] if self.recipe.class_bias else [])]

    def rule(self, option: Option, left_out: LeftOut = NONE) -> BranchRule:
        bias, replicates = self.fit(option, left_out), self.replicates(option, left_out)
        if replicates is not None and option.is_biased:
            # Only differences of biases matter.
            centred = [values - values.mean(axis=-1, keepdims=True) for values in (bias, replicates)]
            bias = shrink(centred[0], centred[1], target=0.0)
        return BranchRule((option.smoothing,), class_bias=tuple(bias.tolist()), gate_level=option.gate_level)

    def candidates(self, rule: BranchRule) -> list[Candidate]:
        found = super().candidates(rule)
        smoothing, gate = rule.smoothings[0], self._gated(rule.smoothings[0], rule.gate_level)
        if search := self.recipe.class_bias:
            slope = rule.scaling.slopes[0] if rule.scaling else 1.0
            bias, logarithms = np.array(rule.class_bias) / slope, self.rows.logarithms(smoothing)
            for at, name in enumerate(EXPRESSIONS):
                scores = scores_of_bias(self.rows.labels, logarithms, bias, at, search, gated=gate)
                pairs = zip(search.grid.tolist(), scores.tolist(), strict=True)
                found += [Candidate("expr", "class bias", smoothing, name, value, score) for value, score in pairs]
        best = super()._best(NONE)
        for level in self.recipe.gate_levels:
            score = self._in_sample(replace(best, gate_level=level), NONE)
            found.append(Candidate("expr", "gate", smoothing, None, level, score))
        return found

    def _best(self, left_out: LeftOut) -> Option:
        best = super()._best(left_out)
        return self._first_best((best, *(replace(best, gate_level=one) for one in self.recipe.gate_levels)), left_out)

    def _gated(self, smoothing: Smoothing, level: float | None) -> np.ndarray | None:
        return None if level is None else gated_expressions(self.rows.backbone(smoothing), level).astype(np.int8)

    def _fit(self, option: Option, left_out: LeftOut) -> np.ndarray:
        if not option.is_biased or self.recipe.class_bias is None:
            return np.zeros(len(EXPRESSIONS))
        gated = self._gated(option.smoothing, option.gate_level)
        return fit_class_bias(
            self.rows.take(self.rows.labels, left_out),
            self.rows.take(self.rows.logarithms(option.smoothing), left_out),
            self.recipe.class_bias,
            gated=None if gated is None else self.rows.take(gated, left_out),
        )

    def _decide(self, option: Option, left_out: LeftOut) -> np.ndarray:
        chosen = (self.rows.logarithms(option.smoothing) + self.fit(option, left_out)).argmax(axis=1)
        gated = self._gated(option.smoothing, option.gate_level)
        return chosen if gated is None else np.where(gated >= 0, gated, chosen)


class UnitSearch(BranchSearch):
    """The search for action units: thresholds, and smoothing of all or of each."""

    def choose(self, left_out: LeftOut = NONE) -> BranchRule:
        best = self._best(left_out)
        options = self._best_of_units(best, left_out) if self.recipe.smoothing_per_unit else [best] * len(ACTION_UNITS)
        rules = {one: self.rule(one, left_out) for one in dict.fromkeys(options)}
        thresholds = tuple(rules[one].thresholds[at] for at, one in enumerate(options))
        smoothings = tuple(one.smoothing for one in options)
        rule = BranchRule(smoothings if len(rules) > 1 else smoothings[:1], thresholds=thresholds)
        return self.calibrated(rule, left_out)

    def rule(self, option: Option, left_out: LeftOut = NONE) -> BranchRule:
        thresholds, replicates = self.fit(option, left_out), self.replicates(option, left_out)
        # The threshold of a unit that is never active is not fitted.
        active = (self.rows.take(self.rows.labels, left_out) == 1).any(axis=0)
        if replicates is not None and active.any():
            fitted = shrink(to_logits("au", thresholds[active]), to_logits("au", replicates[:, active]))
            thresholds = thresholds.copy()
            thresholds[active] = from_logits("au", fitted)
        return BranchRule((option.smoothing,), thresholds=tuple(thresholds.tolist()))

    def candidates(self, rule: BranchRule) -> list[Candidate]:
        found = super().candidates(rule)
        if self.recipe.smoothing_per_unit:
            for one in self.smoothings:
                f1 = _f1_of_units(self._count(Option(one), NONE).sum(axis=0))
                pairs = zip(ACTION_UNITS, f1.tolist(), strict=True)
                found += [Candidate("au", "smoothing", one, name, None, score) for name, score in pairs]
        return found + self._thresholds(rule)

    def _thresholds(self, rule: BranchRule) -> list[Candidate]:
        """Return the F1 of each action unit on the published grid, and at the threshold of the rule.

        The outputs are those on which the thresholds were chosen, before calibration.
        """
        plain = replace(rule, scaling=None)
        if self.recipe.thresholds_on == "unsmoothed":
            plain = replace(plain, smoothings=(Smoothing(),))
        values, found = self.rows.smoothed(plain), []
        for at, name in enumerate(ACTION_UNITS):
            own = rule.thresholds[at]
            if rule.scaling:
                logit = to_logits("au", np.array(own)) - rule.scaling.offsets[at]
                own = float(from_logits("au", logit / rule.scaling.slopes[at]))
            tried = list(dict.fromkeys([*GRID.tolist(), own]))
            scores = f1_of_thresholds(self.rows.labels[:, at], values[:, at], tried)
            smoothing = plain.smoothings[at if len(plain.smoothings) > 1 else 0]
            pairs = zip(tried, scores.tolist(), strict=True)
            found += [Candidate("au", "threshold", smoothing, name, value, score) for value, score in pairs]
        return found

    def _best_of_units(self, pooled: Option, left_out: LeftOut) -> list[Option]:
        """Return the best option for each action unit, if it is better than that of all units beyond the noise.

        The gain in F1 has to be larger than one standard error, that of the jackknife over the folds (the rule of one
        standard error: Breiman et al. 1984, Classification and Regression Trees, section 3.4.3).
        """
        counts = {one: self.inner_counts(Option(one), left_out) for one in self.smoothings}
        scores = {one: _f1_of_units(values.sum(axis=0)) for one, values in counts.items()}
        found = []
        for at in range(len(ACTION_UNITS)):
            best = max(self.smoothings, key=lambda one: scores[one][at])
            without = [_f1_of_units(one.sum(axis=0) - one)[:, at] for one in (counts[best], counts[pooled.smoothing])]
            gain = scores[best][at] - scores[pooled.smoothing][at]
            error = float(np.sqrt(jackknife_variance(without[0] - without[1]))) if len(without[0]) > 1 else np.inf
            found.append(Option(best) if gain > max(error, _MIN_GAIN) else pooled)
        return found

    def _fit(self, option: Option, left_out: LeftOut) -> np.ndarray:
        search = grid_thresholds if self.recipe.thresholds == "grid" else optimal_thresholds
        on = option.smoothing if self.recipe.thresholds_on == "smoothed" else Smoothing()
        return search(self.rows.take(self.rows.labels, left_out), self.rows.take(self.rows.values(on), left_out))

    def _decide(self, option: Option, left_out: LeftOut) -> np.ndarray:
        return self.rows.values(option.smoothing).astype(np.float64) >= self.fit(option, left_out)


def _f1_of_units(counts: np.ndarray) -> np.ndarray:
    found = metrics_of_counts("au", counts)
    return np.stack([found[f"f1_{name}"] for name in ACTION_UNITS], axis=-1)


def search_of(rows: BranchRows, recipe: PostProcessingRecipe) -> BranchSearch:
    """Return the search for the branch of these rows."""
    kinds: dict[BranchName, type[BranchSearch]] = {"expr": ExpressionSearch, "va": BranchSearch, "au": UnitSearch}
    return kinds[rows.branch](rows, recipe)
