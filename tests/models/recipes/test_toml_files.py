import pytest

from models.recipes.registry import RECIPES, find_recipe
from models.recipes.toml_files import recipe_from_toml, recipe_to_toml

TEXT = recipe_to_toml(find_recipe("default")).replace('name = "default"', 'name = "mine"')


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=list(RECIPES))
def test_a_recipe_that_was_written_is_read_with_every_value(recipe):
    read = recipe_from_toml(recipe_to_toml(recipe))
    assert read.is_part_of(recipe) and recipe.is_part_of(read)
    assert (read.name, read.version, read.summary) == (recipe.name, recipe.version, recipe.summary)
    for task in recipe.tasks:
        alone = recipe_from_toml(recipe_to_toml(recipe, tasks=[task]))
        assert alone.tasks == (task,) and alone.is_part_of(recipe)


def test_own_values_and_defaults():
    mine = recipe_from_toml(
        TEXT.replace("hidden_units = 128", "hidden_units = [64, 32]").replace("dropout = 0.5\n", "")
    )
    (expr,) = mine.variant("expr").parts
    assert (expr.hidden_units, expr.dropout) == ((64, 32), 0)
    assert mine.postprocessing_of("va").name == "mine" and not mine.is_part_of(find_recipe("default"))


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('name = "mine"', 'name = "My-Recipe"', "name: expected a small letter"),
        ("version = 2", "version = true", "version: expected a valid integer, got True"),
        ("version = 2", "", "version: expected a value, found none"),
        ("version = 2", "version = 2\nvresion = 3", "vresion: unknown key$"),
        (
            "dropout = 0.5",
            "dropout = 1.5",
            "expr.head.dropout: expected a number of at least 0 and at most 0.99",
        ),
        ("epochs = 40", 'epochs = "40"', "expr.head.epochs: expected a valid integer, got '40'$"),
        (
            "hidden_units = 128",
            "hidden_units = 1.5",
            "expr.head.hidden_units: expected a valid integer or a valid array, got 1.5$",
        ),
        (
            "hidden_units = 128",
            'hidden_units = [1, "a"]',
            "expr.head.hidden_units 2: expected a valid integer, got 'a'$",
        ),
        ('summary = "Best', 'summary = 2020-01-01 # "', "summary: expected a valid string"),
        ("patience = 8", "patience = 8\nwarmup = 2", "expr.head.warmup: unknown key$"),
        (
            'checkpoint = "macro_f1"',
            'checkpoint = "mean_f1"',
            "expr.head.checkpoint: expected loss or accuracy",
        ),
        (
            'features = "embeddings"',
            'features = "all"',
            "expr.head.features: expected 'embeddings', 'scores' or 'both', got 'all'$",
        ),
        ('branches = ["expr"]', 'branches = ["va"]', "expr.head.checkpoint: expected loss or mean_ccc of va"),
        ("limit = 1.0", "limit = -1.0", "expr.postprocessing.class_bias: class bias: expected a positive limit"),
        ("steps = 9", "steps = 1000000000", "expr.postprocessing.class_bias: class bias: expected .* 10,000 steps"),
        (
            "gate_levels = []",
            "gate_levels = [1.5]",
            "expr.postprocessing.gate_levels: expected numbers between",
        ),
        (
            'spaces = ["probability"]',
            "spaces = []",
            "expr.postprocessing.spaces: expected probability, logit or both, got none",
        ),
        (
            "[expr.postprocessing.class_bias]",
            "[expr.postprocessing.smoothings]\nva = []\n[expr.postprocessing.class_bias]",
            "expr.postprocessing.smoothings.expr: expected at least one, found none",
        ),
        (
            "[expr.postprocessing.class_bias]",
            '[expr.postprocessing.smoothings]\nexpr = [{ method = "gaussian", half_width = 1e9, unit = "seconds" }]\n'
            "[expr.postprocessing.class_bias]",
            "expr.postprocessing.smoothings.expr.half_width: expected 0 to 10,000",
        ),
        ('scored_rows = "all"', 'name = "yours"', "expr.postprocessing.name: expected no name, .*, got 'yours'$"),
        ("[[expr.head]]", "[[expr.heads]]", "expr.heads: unknown key$"),
        ("version = 2", "version = ", r"expected TOML, got: .*line 2"),
    ],
)
def test_wrong_values_name_the_key_and_what_was_expected(old, new, expected):
    assert old in TEXT
    with pytest.raises(ValueError, match=f"^{expected}") as caught:
        recipe_from_toml(TEXT.replace(old, new, 1))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            'inputs_from = ["va"]',
            'inputs_from = ["au"]',
            "mtl.head 2.inputs_from: expected other branches than expr, au",
        ),
        (
            "branch_weights = [1.146, 1.006]",
            "branch_weights = [1.0]",
            "mtl.head 2.branch_weights: expected a positive",
        ),
        (
            "branch_weights = [1.146, 1.006]",
            "branch_weights = [-1, 2]",
            "mtl.head 2.branch_weights: expected a positive",
        ),
        ("inputs_from = []", 'inputs_from = ["expr"]', "mtl.head: inputs_from: expected branches of earlier parts"),
        ("[[mtl.head]]", "[[expr.head]]", "expr.head: would use labels of au, va; challenges of a single task"),
    ],
)
def test_wrong_inputs_of_other_tasks_are_refused(old, new, expected):
    text = recipe_to_toml(find_recipe("stacked")).replace('"stacked"', '"mine"')
    assert old in text
    text = text.replace("[mtl.", "[expr.") if "expr.head]]" in new else text
    with pytest.raises(ValueError, match=f"^{expected}"):
        recipe_from_toml(text.replace(old, new, 2 if "head]]" in new else 1))


def test_parts_are_numbered_and_cover_the_branches_of_their_task():
    start = TEXT.index("[[mtl.head]]")
    mtl = TEXT[start:]
    with pytest.raises(ValueError, match=r"^mtl.head 1.epochs: expected a number of at least 1"):
        recipe_from_toml(TEXT[:start] + mtl.replace("epochs = 60", "epochs = 0"))
    with pytest.raises(ValueError, match=r"^mtl.head: expected one seeds in all parts, got \[3, 4\]"):
        recipe_from_toml(TEXT[:start] + mtl.replace("seeds = 3", "seeds = 4", 1))
    second = mtl.index("[[mtl.head]]", 5)
    with pytest.raises(ValueError, match=r"^mtl.head: expected branches au, expr, va, got au, expr"):
        recipe_from_toml(TEXT[:start] + mtl[second:])
