"""``affwild2 recipes``: list the recipes of ``fit``, and print one as TOML."""

from dataclasses import dataclass
from typing import ClassVar

from data_contracts.errors import InputError
from flows.commands.parameters import ListRecipesParameters, ShowRecipeParameters
from flows.engine.console import print_line, print_names, print_result, print_table
from models.recipes.registry import RECIPES
from models.recipes.toml_files import recipe_to_toml
from tasks.recipe_files import load_recipe


@dataclass(frozen=True)
class RecipeSummary:
    """A recipe of the registry. ``kinds``: kinds of its heads."""

    name: str
    version: int
    tasks: list[str]
    kinds: list[str]
    summary: str


@dataclass(frozen=True)
class RecipeList:
    """The recipes of the registry, in the order of their definition."""

    command: ClassVar[str] = "recipes"
    recipes: list[RecipeSummary]


def read_recipes() -> RecipeList:
    """Return the recipes of the registry."""
    return RecipeList(
        [
            RecipeSummary(
                one.name,
                one.version,
                list(one.tasks),
                list(dict.fromkeys(head.kind for head in one.heads.values())),
                one.summary,
            )
            for one in RECIPES.values()
        ]
    )


def list_recipes(parameters: ListRecipesParameters) -> int:
    """Print the recipes of the registry."""
    listed = read_recipes()
    if print_result(listed) or print_names(one.name for one in listed.recipes):
        return 0
    rows = [[one.name, one.version, ", ".join(one.tasks), ", ".join(one.kinds), one.summary] for one in listed.recipes]
    print_table("Recipes", ["recipe", "version", "tasks", "heads", "summary"], rows)
    print_line("all values: affwild2 recipes show NAME; your own: affwild2 fit TASK --recipe FILE.toml")
    return 0


def show_recipe(parameters: ShowRecipeParameters) -> int:
    """Print a recipe as TOML."""
    recipe = load_recipe(parameters.name)
    if parameters.task and parameters.task not in recipe.tasks:
        raise InputError(
            f"--task {parameters.task}: recipe {recipe.name} has settings of {', '.join(recipe.tasks)} only"
        )
    text = recipe_to_toml(recipe, tasks=[parameters.task] if parameters.task else None)
    for line in text.splitlines():
        print_line(line, is_result=True)
    return 0
