import subprocess
import sys

import numpy as np
import pytest
import torch

from models.heads.fitting import Adam, evaluate_head, fit_seeds
from models.heads.head import head_from_bytes, head_to_bytes
from models.heads.metrics import MAIN_METRIC
from models.heads.recipes import TaskRecipe
from models.heads.rows import TrainingRows
from models.heads.sequences import SubjectSequence
from models.recipes.registry import find_recipe


def learnable(count, *, seed, size=32, missing=0.0):
    """Labels that are linear in the embeddings, and logits that show the expression."""
    plan, random = np.random.default_rng(99), np.random.default_rng(seed)
    maps = {"expr": plan.normal(size=(size, 8)), "va": plan.normal(size=(size, 2)), "au": plan.normal(size=(size, 12))}
    x = random.normal(size=(count, size))
    expr = (x @ maps["expr"]).argmax(axis=1).astype("i1")
    va = np.tanh(x @ maps["va"] / 6).astype("f4")
    au = (x @ maps["au"] > 2).astype("i1")
    away = random.random((3, count)) < missing
    expr[away[0]], va[away[1]], au[away[2]] = -1, np.nan, -1
    logits = (3 * np.eye(8)[np.maximum(expr, 0)] + random.normal(size=(count, 8))).astype("f4")
    return TrainingRows((x * 4 + 7).astype("f2"), logits, {"expr": expr, "va": va, "au": au})


TRAIN, VALIDATION = learnable(3000, seed=1, missing=0.2), learnable(800, seed=2, missing=0.2)


@pytest.mark.parametrize(
    ("task", "recipe", "least"),
    [
        ("expr", "default", 0.8),
        ("va", "default", 0.9),
        ("au", "default", 0.8),
        ("mtl", "default", 2.5),
        ("expr", "paper", 0.6),
        ("au", "paper", 0.7),
        ("mtl", "paper", 1.0),
    ],
)
def test_heads_learn_labels_that_follow_from_the_features(task, recipe, least):
    settings = find_recipe(recipe).variant(task).replace(seeds=1)
    fitted = fit_seeds(TRAIN, VALIDATION, task=task, recipe=settings)
    assert fitted.figures[MAIN_METRIC[task]] > least
    assert evaluate_head(fitted.head, VALIDATION) == fitted.figures
    assert all(1 <= epoch <= 60 for epoch in fitted.best_epochs[0])


def test_outputs_of_one_part_are_inputs_of_the_next():
    """Only the logits show valence; the second part is fitted on embeddings that show nothing."""
    random = np.random.default_rng(5)
    va = random.uniform(-0.9, 0.9, (800, 2)).astype("f4")
    noise = random.normal(size=(800, 4)).astype("f4")
    labels = {"va": va, "expr": (va[:, 0] > 0).astype("i1"), "au": np.repeat(va[:, 1:] > 0, 12, axis=1).astype("i1")}
    rows = TrainingRows(noise, np.arctanh(va), labels)
    first, second = find_recipe("stacked").variant("mtl").replace(seeds=2, epochs=8, batch_size=64).parts
    changed = second.replace(features="embeddings", epoch_rows=0)
    scores = {}
    for name, part in (("with", changed), ("without", changed.replace(inputs_from=()))):
        fitted = fit_seeds(rows, rows, task="mtl", recipe=TaskRecipe((first, part)))
        scores[name] = fitted.figures["mean_f1"]
        head = head_from_bytes(head_to_bytes(fitted.head))
        assert evaluate_head(head, rows) == fitted.figures
    assert scores["with"] > 0.9 and scores["without"] < 0.8


def test_same_seed_gives_same_tensors_and_other_seeds_differ():
    recipe = find_recipe("default").variant("expr").replace(seeds=2, epochs=3)
    first, second = (fit_seeds(TRAIN, VALIDATION, task="expr", recipe=recipe) for _ in range(2))
    for name, tensor in first.head.tensors.items():
        assert (tensor == second.head.tensors[name]).all()
    assert not np.allclose(first.head.tensors["seed0.expr.0.weight"], first.head.tensors["seed1.expr.0.weight"])
    assert len(first.seed_figures) == 2
    alone = fit_seeds(TRAIN, VALIDATION, task="expr", recipe=recipe.replace(seeds=1), first_seed=1)
    for name, tensor in alone.head.tensors.items():
        assert (tensor == first.head.tensors[name.replace("seed0", "seed1")]).all()
    assert alone.seed_figures == first.seed_figures[1:]


def test_the_best_epoch_is_kept():
    recipe = find_recipe("paper").variant("expr").replace(epochs=6)
    fitted = fit_seeds(TRAIN, VALIDATION, task="expr", recipe=recipe)
    history = fitted.histories[0][0]
    values = [entry["accuracy"] for entry in history]
    assert len(values) == 6
    assert fitted.best_epochs[0][0] == int(np.argmax(values)) + 1
    assert fitted.figures["accuracy"] == pytest.approx(max(values), abs=2e-3)


def test_fits_the_given_epochs_without_validation_rows():
    recipe = find_recipe("default").variant("mtl").replace(seeds=1)
    fitted = fit_seeds(TRAIN, None, task="mtl", recipe=recipe, epochs=[[2, 3, 1]])
    assert [len(history) for history in fitted.histories[0]] == [2, 3, 1]
    assert fitted.figures == {}


def test_unlabelled_rows_do_not_count_in_the_default_recipe():
    known = TRAIN.labels["expr"] >= 0
    only = TrainingRows(
        TRAIN.embeddings[known], TRAIN.logits[known], {b: values[known] for b, values in TRAIN.labels.items()}
    )
    recipe = find_recipe("default").variant("expr").replace(seeds=1, epochs=2, standardize=False)
    figures = [fit_seeds(rows, VALIDATION, task="expr", recipe=recipe).figures["macro_f1"] for rows in (TRAIN, only)]
    assert abs(figures[0] - figures[1]) < 0.05


def test_missing_labels_and_infinite_features_are_refused():
    blank = {
        "expr": np.full(3000, -1, "i1"),
        "va": np.full((3000, 2), np.nan, "f4"),
        "au": np.full((3000, 12), -1, "i1"),
    }
    rows = TrainingRows(TRAIN.embeddings, TRAIN.logits, blank)
    for task in ("expr", "va", "au"):
        with pytest.raises(ValueError, match="expected labelled training rows"):
            fit_seeds(rows, VALIDATION, task=task, recipe=find_recipe("default").variant(task))
    broken = TrainingRows(TRAIN.embeddings * np.float16(np.inf), TRAIN.logits, TRAIN.labels)
    with pytest.raises(ValueError, match="finite"):
        fit_seeds(broken, VALIDATION, task="expr", recipe=find_recipe("default").variant("expr"))


class SlicedOnly(np.ndarray):
    """An array whose rows cannot be copied."""

    def __getitem__(self, index):
        assert isinstance(index, slice)
        return super().__getitem__(index)


def test_heads_on_scores_read_no_embeddings():
    rows = TrainingRows(TRAIN.embeddings.view(SlicedOnly), TRAIN.logits, TRAIN.labels)
    recipe = find_recipe("paper").variant("va").replace(epochs=1)
    assert fit_seeds(rows, rows, task="va", recipe=recipe).figures


_MEMORY = """
import re, sys, threading
import numpy as np
from models.heads.recipes import TaskRecipe
from models.heads.rows import TrainingRows
from models.recipes.registry import find_recipe
from models.heads.fitting import fit_seeds

def anonymous_mb():
    return int(re.search(r"RssAnon:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024

def rows(count):
    embeddings = np.load(sys.argv[1], mmap_mode="r")[:count]
    labels = {"expr": np.arange(count).astype("i1") % 8}
    return TrainingRows(embeddings, np.zeros((count, 2), "f4"), labels)

recipe = find_recipe("default").variant("expr").replace(seeds=1, epochs=1, batch_size=2048)
fit_seeds(rows(4096), rows(4096), task="expr", recipe=recipe)
before, seen, over = anonymous_mb(), [], threading.Event()

def watch():
    while not over.wait(0.01):
        seen.append(anonymous_mb())

watcher = threading.Thread(target=watch)
watcher.start()
fit_seeds(rows(50_000), rows(50_000), task="expr", recipe=recipe)
over.set()
watcher.join()
print(max(seen) - before)
"""


def test_memory_stays_bounded_when_features_do_not_fit(tmp_path):
    path = tmp_path / "embeddings.npy"
    np.save(path, np.random.default_rng(0).random((50_000, 1280), "f4").astype("f2"))
    size_mb = path.stat().st_size / 1e6
    grown = subprocess.run([sys.executable, "-c", _MEMORY, str(path)], capture_output=True, text=True, check=True)
    assert float(grown.stdout) < size_mb / 2


def test_adam_leaves_parameters_without_gradient():
    first, second = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    optimizer = Adam([first, second], learning_rate=0.1)
    first.sum().backward()
    optimizer.step()
    assert (second == 1).all() and (first < 1).all()


def test_adam_does_not_load_the_compiler_of_torch():
    code = (
        "import sys, torch\nfrom models.heads.fitting import Adam\nw = torch.ones(2, requires_grad=True)\n"
        "a = Adam([w], learning_rate=0.1)\nw.sum().backward()\na.step()\n"
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("task", ["va", "mtl"])
def test_paper_reads_published_probabilities_in_fit_and_prediction(task):
    """A head on logits of a MobileNet equals one on their softmax; the latter is what the published code stored."""
    recipe = find_recipe("paper").variant(task, published_scores="probabilities").replace(epochs=2)
    stored = TRAIN.logits.astype("f8")
    stored = np.exp(stored) / np.exp(stored).sum(axis=1, keepdims=True)
    published = TrainingRows(TRAIN.embeddings, stored.astype("f4"), TRAIN.labels)
    expected = fit_seeds(published, None, task=task, recipe=find_recipe("paper").variant(task).replace(epochs=2))
    found = fit_seeds(TRAIN, VALIDATION, task=task, recipe=recipe)
    assert {b.scores for b in found.head.config.branches.values()} == {"probabilities"}
    kept = fit_seeds(TRAIN, None, task=task, recipe=recipe)
    for name, tensor in expected.head.tensors.items():
        np.testing.assert_allclose(kept.head.tensors[name], tensor, atol=1e-5)
    outputs, wanted = (
        head.predict_sequence(SubjectSequence(rows.embeddings, rows.logits, np.ones(3000, bool), np.zeros(3000)))
        for head, rows in ((kept.head, TRAIN), (expected.head, published))
    )
    for branch, values in wanted.items():
        np.testing.assert_allclose(outputs[branch], values, atol=1e-4)
    assert evaluate_head(found.head, VALIDATION) == found.figures


def test_other_heads_keep_logits():
    for name, task in (("paper", "expr"), ("default", "mtl"), ("default", "va")):
        recipe = find_recipe(name).variant(task, published_scores="probabilities").replace(epochs=1, seeds=1)
        head = fit_seeds(TRAIN, None, task=task, recipe=recipe).head
        assert {branch.scores for branch in head.config.branches.values()} == {"logits"}
