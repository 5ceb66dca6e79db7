"""Generated labelled features for fitting heads, as wide as real features, with labels that can be learnt in part."""

import numpy as np

from models.heads.rows import TrainingRows

WIDTH = 1280
HIDDEN_CAUSES = 24
SHARE = np.array([0.12, 0.05, 0.16, 0.27, 0.4, 0.35, 0.24, 0.03, 0.03, 0.03, 0.63, 0.08])


def make_rows(count: int, *, seed: int) -> TrainingRows:
    """Generate float16 embeddings >= 0 from few hidden causes and noise, and labels that depend on the causes."""
    plan, random = np.random.default_rng(99), np.random.default_rng(seed)
    basis = plan.normal(0, 0.2, (HIDDEN_CAUSES, WIDTH)).astype(np.float32)
    maps = plan.normal(size=(HIDDEN_CAUSES, 14)).astype(np.float32) / np.sqrt(HIDDEN_CAUSES)
    score_maps = plan.normal(size=(HIDDEN_CAUSES, 8)).astype(np.float32)
    embeddings, logits = np.empty((count, WIDTH), np.float16), np.empty((count, 8), np.float32)
    units, values = np.empty((count, 12), np.int8), np.empty((count, 2), np.float32)
    cuts = np.array([np.quantile(plan.normal(0, np.sqrt(2), 10_000), 1 - share) for share in SHARE])
    for first in range(0, count, 16_384):
        part = slice(first, min(first + 16_384, count))
        rows = part.stop - first
        causes = random.standard_normal((rows, HIDDEN_CAUSES), np.float32)
        seen = causes @ basis + 0.6 * random.standard_normal((rows, WIDTH), np.float32)
        embeddings[part] = np.maximum(seen, 0)
        logits[part] = causes @ score_maps + random.standard_normal((rows, 8), np.float32)
        labels = causes @ maps + random.standard_normal((rows, 14), np.float32)
        units[part], values[part] = labels[:, :12] > cuts, np.tanh(labels[:, 12:] / 2 - 0.1)
    return TrainingRows(embeddings, logits, {"expr": np.full(count, -1, np.int8), "va": values, "au": units})
