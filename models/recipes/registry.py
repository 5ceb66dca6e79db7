"""The named recipes."""

from data_contracts.vocabulary import BRANCHES_OF_TASK, BranchName, TaskName
from models.decisions.recipes import DEFAULT as DEFAULT_POSTPROCESSING
from models.decisions.recipes import PAPER as PAPER_POSTPROCESSING
from models.decisions.recipes import PAPER_MTL as PAPER_MTL_POSTPROCESSING
from models.heads.recipes import Checkpoint, HeadRecipe, TaskRecipe, TemporalLayers
from models.recipes.recipe import Recipe

# Savchenko 2022, section 3, and the authors' ABAW3 notebook where the two differ (batch sizes, epochs, checkpoints).
# Comments name the cells of the notebook, which contain the linear and the hidden variant.
_PAPER: dict[TaskName, HeadRecipe] = {
    "expr": HeadRecipe(("expr",), "embeddings", 128, 0.0, 256, 10, "accuracy"),  # A3 c39, c40
    "va": HeadRecipe(("va",), "scores", 0, 1 / 512, 512, 20, "loss"),  # A3 c64, c65
    "au": HeadRecipe(("au",), "embeddings", 128, 0.0, 512, 20, "loss", drop_partial_units=True),  # A3 c81, c82
    "mtl": HeadRecipe(
        ("va", "expr", "au"),
        "both",
        0,
        1 / 256,
        256,
        20,
        "loss",
        published_masking=True,
        published_weighting=True,
        shared_hidden=True,
        drop_partial_units=True,
    ),  # A3 c103, c104
}
# Branch, L2, rows of a batch, epochs, patience, checkpoint.
_DEFAULT_FITS: tuple[tuple[BranchName, float, int, int, int, Checkpoint], ...] = (
    ("expr", 1e-4, 256, 40, 8, "macro_f1"),
    ("va", 1e-2, 128, 60, 15, "mean_ccc"),
    ("au", 1e-4, 512, 40, 8, "mean_f1"),
)
_DEFAULT: dict[BranchName, HeadRecipe] = {
    branch: HeadRecipe(
        (branch,),
        "embeddings",
        128,
        l2,
        batch_size,
        epochs,
        checkpoint,
        patience=patience,
        standardize=True,
        dropout=0.5,
        seeds=3,
        epoch_rows=200_000,
    )
    for branch, l2, batch_size, epochs, patience, checkpoint in _DEFAULT_FITS
}


def _paper() -> Recipe:
    postprocessing = dict.fromkeys(_PAPER, PAPER_POSTPROCESSING) | {"mtl": PAPER_MTL_POSTPROCESSING}
    heads = {task: TaskRecipe((part,)) for task, part in _PAPER.items()}
    summary = "As published (Savchenko 2022)"
    return Recipe("paper", 1, summary, heads, postprocessing, as_published=True)


def _default() -> Recipe:
    heads = {task: TaskRecipe(tuple(_DEFAULT[b] for b in branches)) for task, branches in BRANCHES_OF_TASK.items()}
    summary = "Best challenge metric, averaged seeds, tuned decisions"
    return Recipe("default", 2, summary, heads, dict.fromkeys(heads, DEFAULT_POSTPROCESSING))


def _temporal(name: str, summary: str, layers: TemporalLayers, learning_rate: float) -> Recipe:
    """Return a recipe with one network for all branches of a task.

    Starting points are those of public code for the same features, which is two to five times as wide and deep: a TCN
    of four layers of width 256, kernel 15, dropout 0.3 (FreedomPuppy77/Charon), and a Transformer of five layers of
    width 256, windows of 400, weight decay 0.01 (SMIL-SPCRAS/CVPRW-26).
    """
    heads = {}
    for task, branches in BRANCHES_OF_TASK.items():
        checkpoint = "p_mtl" if len(branches) > 1 else _DEFAULT[branches[0]].checkpoint
        part = HeadRecipe(
            branches,
            "embeddings",
            128,
            0.0,
            2400,
            20,
            checkpoint,
            learning_rate=learning_rate,
            patience=6,
            standardize=True,
            dropout=0.3,
            seeds=3,
            kind=name,
            epoch_rows=200_000,
            temporal=layers,
            weight_decay=0.01,
        )
        heads[task] = TaskRecipe((part,))
    return Recipe(name, 1, summary, heads, dict.fromkeys(heads, DEFAULT_POSTPROCESSING))


DEFAULT = _default()
_TCN = _temporal("tcn", "Dilated convolutions over the frames around a frame", TemporalLayers(layers=6), 1e-3)
_TRANSFORMER = _temporal(
    "transformer", "A Transformer encoder over windows of ten seconds", TemporalLayers(layers=2), 3e-4
)


def _best() -> Recipe:
    # What held-out scores of simulated data choose by more than the spread of seeds; see docs/recipes.md.
    va = DEFAULT.heads["va"].replace(features="both")
    heads: dict[TaskName, TaskRecipe] = {
        "expr": DEFAULT.heads["expr"],
        "va": va,
        "au": DEFAULT.heads["au"],
        "mtl": TaskRecipe((*va.parts, *DEFAULT.heads["expr"].parts, *DEFAULT.heads["au"].parts)),
    }
    # A space applies to all branches, and only that of valence and arousal gains: ``mtl`` keeps the values.
    smoothed = DEFAULT.postprocessing["va"].replace(spaces=("probability", "logit"))
    summary = "Default; VA on embeddings and scores, windows also of logits"
    return Recipe("best", 2, summary, heads, DEFAULT.postprocessing | {"va": smoothed})


def _stacked() -> Recipe:
    # Valence and arousal of the scores are inputs of the other two tasks, with task weights max n / n (A4 c42 to c69).
    va = HeadRecipe(("va",), "scores", 0, 1 / 512, 512, 20, "mean_ccc", patience=8, standardize=True, seeds=3)
    others = HeadRecipe(
        ("expr", "au"),
        "both",
        128,
        1e-4,
        512,
        40,
        "p_mtl",
        patience=8,
        standardize=True,
        dropout=0.5,
        seeds=3,
        epoch_rows=200_000,
        shared_hidden=True,
        inputs_from=("va",),
        branch_weights=(1.146, 1.006),
    )
    summary = "MTL: VA from scores, its outputs as inputs of EXPR and AU"
    return Recipe("stacked", 1, summary, {"mtl": TaskRecipe((va, others))}, {"mtl": DEFAULT_POSTPROCESSING})


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe for recipe in (_paper(), DEFAULT, _best(), _stacked(), _TCN, _TRANSFORMER)
}


def find_recipe(name: str) -> Recipe:
    """Return the recipe of this name.

    Raises:
        ValueError: the name is unknown.
    """
    if name not in RECIPES:
        raise ValueError(f"expected recipe {', '.join(RECIPES)}, got {name!r}")
    return RECIPES[name]
