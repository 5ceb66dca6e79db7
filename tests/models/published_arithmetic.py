"""Heads, decisions and metrics of the paper, computed slowly in float64, as a reference for the product.

Written from the paper and the authors' ABAW3 notebook (A3 cN: its cell N), without code of the product. Gradients are
derived by hand. Labels are as in ``TrainingRows``.
"""

import math
from dataclasses import dataclass, field

import numpy as np

TINY = 1e-7  # K.epsilon()
OUTPUTS = {"va": 2, "expr": 8, "au": 12}


def class_weights(labels):
    """A3 c38, c97: 1 / n, divided by the least."""
    counts = [sum(1 for label in labels if label == number) for number in range(8)]
    return [max(counts) / count for count in counts]


def unit_weights(labels, *, whole_rows=True):
    """A3 c78, c98: (1 / n) * (N / 2) for the values 0 and 1 of each unit, from rows with all labels; [2, 12]."""
    weights = np.ones((2, labels.shape[1]))
    for unit in range(labels.shape[1]):
        values = [row[unit] for row in labels if (min(row) if whole_rows else row[unit]) >= 0]
        for value in (0, 1):
            weights[value, unit] = len(values) / 2 / values.count(value)
    return weights


def softmax(row):
    powers = [math.exp(value - max(row)) for value in row]
    return np.array([power / sum(powers) for power in powers])


def sigmoid(value):
    return 1 / (1 + math.exp(-value)) if value >= 0 else math.exp(value) / (1 + math.exp(value))


def activate(branch, logits):
    if branch == "expr":
        return np.stack([softmax(row) for row in logits])
    return np.vectorize(math.tanh if branch == "va" else sigmoid)(logits)


def clip(value):
    """Return the clipped value, and the derivative of clipping."""
    return min(max(value, TINY), 1 - TINY), float(TINY <= value <= 1 - TINY)


def expression_loss(logits, labels, weights, *, masked=False, broadcast=False):
    """Return the loss and its gradient. ``masked``, ``broadcast``: as in the multi-task model (A3 c101, c103, c104).

    There, Keras gets no logits, because a mask multiplies the probabilities: it takes the softmax of log(clip(p)). The
    losses, [n], times the weights, [n, 1], are an [n, n].
    """
    rows = [row for row in range(len(labels)) if masked or labels[row] >= 0]
    losses, gradient = {}, np.zeros_like(logits)
    for row in rows:
        label, p = max(labels[row], 0), softmax(logits[row])
        if not masked:
            losses[row] = -math.log(p[label])
            gradient[row] = p - (np.arange(8) == label)
            continue
        pairs = [clip(value * (labels[row] >= 0)) for value in p]
        total = sum(clipped for clipped, _ in pairs)
        losses[row] = -math.log(pairs[label][0] / total)
        by_p = [(1 / total - (k == label) / pairs[k][0]) * pairs[k][1] * (labels[row] >= 0) for k in range(8)]
        for j in range(8):
            gradient[row, j] = sum(by_p[k] * p[k] * ((k == j) - p[j]) for k in range(8))
    weight = {row: weights[max(labels[row], 0)] for row in rows}
    if broadcast:
        table = [losses[column] * weight[row] for row in rows for column in rows]
        weight = dict.fromkeys(rows, sum(weight.values()) / len(rows))
        loss = sum(table) / len(table)
    else:
        loss = sum(weight[row] * losses[row] for row in rows) / len(rows)
    for row in rows:
        gradient[row] *= weight[row] / len(rows)
    return loss, gradient


def unit_loss(logits, labels, weights, *, masked=False):
    """Return the weighted binary cross entropy (A3 c79, c102) and its gradient. ``masked``: as for expressions."""
    entries = [(row, unit) for row in range(len(labels)) for unit in range(labels.shape[1])]
    if not masked:
        entries = [(row, unit) for row, unit in entries if labels[row, unit] >= 0]
    loss, gradient = 0.0, np.zeros_like(logits)
    for row, unit in entries:
        p, label = sigmoid(logits[row, unit]), labels[row, unit]
        mask = min(labels[row]) >= 0
        if masked and not mask:
            label = 0
        weight = weights[label, unit] / len(entries)
        if masked:
            clipped, slope = clip(p * mask)
            loss -= weight * math.log((clipped if label else 1 - clipped) + TINY)
            by_p = -1 / (clipped + TINY) if label else 1 / (1 - clipped + TINY)
            gradient[row, unit] = weight * by_p * slope * mask * p * (1 - p)
        else:
            z = logits[row, unit]
            loss += weight * (max(z, 0) - z * label + math.log1p(math.exp(-abs(z))))
            gradient[row, unit] = weight * (p - label)
    return loss, gradient


def value_loss(logits, labels, *, masked=False):
    """Return 1 - (CCC_V + CCC_A) / 2 of tanh(logits) (A3 c33), and its gradient. ``masked``: as for expressions."""
    known = [not any(math.isnan(value) for value in row) for row in labels]
    rows = [row for row in range(len(labels)) if masked or known[row]]
    n, loss, gradient = len(rows), 1.0, np.zeros_like(logits)
    for column in (0, 1):
        x = [math.tanh(logits[row, column]) * known[row] for row in rows]
        y = [float(labels[row, column]) if known[row] else 0.0 for row in rows]
        mean_x, mean_y = sum(x) / n, sum(y) / n
        covariance = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / n
        variances = sum((a - mean_x) ** 2 for a in x) / n + sum((b - mean_y) ** 2 for b in y) / n
        bottom = variances + (mean_x - mean_y) ** 2 + TINY
        loss -= covariance / bottom
        for row, a, b in zip(rows, x, y, strict=True):
            by_x = (b - mean_y) / n / bottom
            by_x -= covariance * 2 * ((a - mean_x) + (mean_x - mean_y)) / n / bottom**2
            gradient[row, column] = -by_x * (1 - a * a) * known[row]
    return loss, gradient


@dataclass
class Adam:
    """Adam as Keras' optimizers compute it: epsilon is added before the bias correction."""

    learning_rate: float
    steps: int = 0
    state: dict = field(default_factory=dict)

    def step(self, parameters, gradients):
        """Change the arrays ``parameters``, by name."""
        self.steps += 1
        size = self.learning_rate * math.sqrt(1 - 0.999**self.steps) / (1 - 0.9**self.steps)
        for name, values in parameters.items():
            for place in np.ndindex(values.shape):
                mean, square = self.state.get((name, place), (0.0, 0.0))
                slope = gradients[name][place]
                mean, square = mean + (slope - mean) * (1 - 0.9), square + (slope**2 - square) * (1 - 0.999)
                self.state[name, place] = mean, square
                values[place] -= size * mean / (math.sqrt(square) + 1e-7)


def batch_losses(recipe, weights, outputs, labels):
    """Return the sum of the losses of the branches, and the gradient of each."""
    total, gradients, masked = 0.0, {}, recipe.published_masking
    for branch in recipe.branches:
        if branch == "va":
            found = value_loss(outputs[branch], labels[branch], masked=masked)
        elif branch == "au":
            found = unit_loss(outputs[branch], labels[branch], weights[branch], masked=masked)
        else:
            found = expression_loss(
                outputs[branch], labels[branch], weights[branch], masked=masked, broadcast=recipe.published_weighting
            )
        total, gradients[branch] = total + found[0], found[1]
    return total, gradients


class Network:
    """Dense layers by branch. ``start`` holds their first weights, in the order in which the product makes layers."""

    def __init__(self, recipe, width, start, seed=0):
        start, sizes = iter(start), recipe.hidden_units
        self.recipe, self.parameters, self.names = recipe, {}, {}
        sizes = sizes if isinstance(sizes, tuple) else (sizes,) if sizes else ()
        for branch in recipe.branches:
            owner, made = "shared" if recipe.shared_hidden else branch, []
            for number, size in enumerate((*sizes, OUTPUTS[branch])):
                name = f"{owner if number < len(sizes) else branch + '.out'}.{number}"
                made.append(name)
                if name not in self.parameters:
                    self.parameters[name] = next(start).astype(np.float64)
                    self.parameters[name + ".bias"] = np.zeros(size)
            self.names[branch] = made
        keys = {(owner, n) for owner in [*recipe.branches, "shared"] for n in range(len(sizes))}
        # Draws of dropout, by layer: see ``SeededDropout``.
        self.draws = {
            f"{owner}.{n}": np.random.default_rng([seed, *owner.encode(), *([n] if n else [])]) for owner, n in keys
        }

    def run(self, branch, x, kept):
        """Return the values of every layer of a branch; ``kept`` holds dropout's factors by layer, or is empty."""
        values = [x]
        for name in self.names[branch]:
            x = (
                np.array([[row @ unit for unit in self.parameters[name]] for row in x])
                + self.parameters[name + ".bias"]
            )
            if name != self.names[branch][-1]:
                x = np.maximum(x, 0) * kept.get(name, 1.0)
            values.append(x)
        return values

    def loss(self, weights, x, labels):
        """Return the loss without dropout."""
        outputs = {branch: self.run(branch, x, {})[-1] for branch in self.names}
        return batch_losses(self.recipe, weights, outputs, labels)[0] + self.penalty()

    def penalty(self):
        return self.recipe.l2 * sum((w**2).sum() for name, w in self.parameters.items() if not name.endswith("bias"))

    def train(self, optimizer, weights, x, labels):
        """Make one step, and return the loss before it."""
        kept, share = {}, self.recipe.dropout
        if share:
            for name in {name: None for names in self.names.values() for name in names[:-1]}:
                drawn = self.draws[name].random((len(x), len(self.parameters[name])), dtype=np.float32)
                kept[name] = (drawn >= share) / (1 - share)
        values = {branch: self.run(branch, x, kept) for branch in self.names}
        loss, slopes = batch_losses(self.recipe, weights, {b: v[-1] for b, v in values.items()}, labels)
        loss += self.penalty()
        gradients = {name: np.zeros_like(values) for name, values in self.parameters.items()}
        for branch, names in self.names.items():
            slope = slopes[branch]
            for number in reversed(range(len(names))):
                gradients[names[number]] += slope.T @ values[branch][number]
                gradients[names[number] + ".bias"] += slope.sum(axis=0)
                if number:
                    slope = slope @ self.parameters[names[number]]
                    slope = slope * (values[branch][number] > 0) * kept.get(names[number - 1], 1.0)
        for name, value in self.parameters.items():
            if not name.endswith("bias"):
                gradients[name] += 2 * self.recipe.l2 * value
        optimizer.step(self.parameters, gradients)
        return loss


def fit(recipe, train, validation, start, *, seed=0):
    """Fit as the notebook does (A3 c40, c65, c82, c104); returns the network, the history and the kept epoch.

    ``train`` and ``validation`` are pairs of inputs float64 [n, width] and labels, of rows that are labelled.
    """
    (x, labels), (held_x, held_labels), size = train, validation, recipe.batch_size
    network, optimizer = Network(recipe, x.shape[1], start, seed), Adam(recipe.learning_rate)
    weights = {
        "expr": class_weights(labels["expr"]) if "expr" in recipe.branches else [],
        "au": unit_weights(labels["au"], whole_rows=recipe.drop_partial_units) if "au" in recipe.branches else [],
    }
    if not recipe.balanced:
        weights = {"expr": np.ones(8), "au": np.ones((2, 12))}
    random, history, best = np.random.default_rng(seed), [], (-math.inf, 0, {})
    for epoch in range(1, recipe.epochs + 1):
        order, losses = random.permutation(len(x)), 0.0
        for first in range(0, len(x), size):
            rows = order[first : first + size]
            losses += len(rows) * network.train(optimizer, weights, x[rows], {b: y[rows] for b, y in labels.items()})
        if recipe.checkpoint == "loss":
            value = 0.0
            for first in range(0, len(held_x), size):
                part = slice(first, first + size)
                count = len(held_x[part])
                held = {branch: y[part] for branch, y in held_labels.items()}
                value += count * network.loss(weights, held_x[part], held) / len(held_x)
            score = -value
        else:
            (branch,) = recipe.branches
            outputs = activate(branch, network.run(branch, held_x, {})[-1])
            score = value = metric(recipe.checkpoint, held_labels[branch], outputs)
        history.append({"epoch": epoch, "train_loss": losses / len(x), recipe.checkpoint: value})
        if score > best[0]:
            best = score, epoch, {name: values.copy() for name, values in network.parameters.items()}
        if recipe.patience and epoch - best[1] >= recipe.patience:
            break
    network.parameters = best[2]
    return network, history, best[1]


def metric(name, labels, outputs):
    """Return a metric of outputs without post-processing."""
    if name == "mean_ccc":
        return (ccc(labels[:, 0], outputs[:, 0]) + ccc(labels[:, 1], outputs[:, 1])) / 2
    if name == "mean_f1":
        return sum(f1(labels[:, unit], outputs[:, unit] >= 0.5) for unit in range(12)) / 12
    decided = [int(np.argmax(row)) for row in outputs]
    if name == "accuracy":
        return sum(int(a == b) for a, b in zip(labels, decided, strict=True)) / len(labels)
    return sum(f1(labels == number, np.array(decided) == number) for number in range(8)) / 8


def f1(labels, decided):
    """F1 of pairs with a label; 0 without a hit (A3 c31, c32)."""
    pairs = [(int(label > 0), int(choice)) for label, choice in zip(labels, decided, strict=True) if label >= 0]
    hits = sum(1 for label, choice in pairs if label and choice)
    return 2 * hits / max(sum(label + choice for label, choice in pairs), 1)


def ccc(labels, values):
    """A3 c33: twice the covariance divided by the variances and the squared difference of the means."""
    n, mean_x, mean_y = len(labels), sum(labels) / len(labels), sum(values) / len(values)
    covariance = sum((x - mean_x) * (y - mean_y) for x, y in zip(labels, values, strict=True)) / n
    spread = sum((x - mean_x) ** 2 for x in labels) / n + sum((y - mean_y) ** 2 for y in values) / n
    return 2 * covariance / (spread + (mean_x - mean_y) ** 2)


def thresholds(labels, probabilities):
    """A3 c34, c85: the first of .1, .2, ... .9 with the best F1, for each unit."""
    grid = [0.1 + 0.1 * step for step in range(9)]
    scores = [
        [f1(y, [value >= cut for value in p]) for cut in grid] for y, p in zip(labels.T, probabilities.T, strict=True)
    ]
    return [grid[unit.index(max(unit))] for unit in scores]


def interpolate(values, present, *, exchanged):
    """P section 2; ``exchanged``: the weights of the two neighbours are exchanged, as in A3 c45, c60."""
    known = [frame for frame in range(len(values)) if present[frame]]
    filled = []
    for frame in range(len(values)):
        before = max((one for one in known if one <= frame), default=known[0])
        after = min((one for one in known if one >= frame), default=known[-1])
        share = (frame - before) / (after - before) if after > before else 0.0
        share = 1 - share if exchanged and after > before else share
        filled.append((1 - share) * values[before] + share * values[after])
    return np.array(filled)


def smooth(values, half_width, *, median):
    """A3 c45, c70, c89: the mean or median of up to ``half_width`` frames on each side, fewer at the ends."""
    result = np.zeros_like(values)
    for frame in range(len(values)):
        window = values[max(frame - half_width, 0) : frame + half_width + 1]
        for column in range(values.shape[1]):
            ordered = sorted(window[:, column])
            middle = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
            result[frame, column] = middle if median else sum(ordered) / len(ordered)
    return result
