"""Find the recipe that a text names: one of the registry, or a TOML file."""

from pathlib import Path

from data_contracts.errors import InputError
from data_contracts.files.inputs import read_lines, reading_inputs
from data_contracts.files.locations import absolute_location, location
from models.recipes.recipe import Recipe
from models.recipes.registry import RECIPES
from models.recipes.toml_files import recipe_from_toml

SUFFIX = ".toml"
# Regular expression of what names a recipe.
TEXT = rf"^({'|'.join(RECIPES)}|.*\.[tT][oO][mM][lL])$"


def is_recipe_file(text: str) -> bool:
    """Return whether a text names a file, not a recipe of the registry."""
    return text.lower().endswith(SUFFIX)


def to_absolute(text: str) -> str:
    """Return the name of a recipe unchanged, and that of a file as every process finds it.

    Raises:
        InputError: the name is unknown, or the URL of a file is invalid.
    """
    if is_recipe_file(text):
        return str(absolute_location(text))
    if text not in RECIPES:
        raise InputError(f"expected recipe {', '.join(RECIPES)}, or a TOML file ({SUFFIX}), got {text!r}")
    return text


def load_recipe(text: str) -> Recipe:
    """Return the recipe that a text names: one of the registry, or a TOML file (a path or s3:// URL).

    Raises:
        InputError: there is no such recipe or file, the file describes no recipe, or it has the name of a recipe of the
            registry with other values.
    """
    text = to_absolute(text)
    if not is_recipe_file(text):
        return RECIPES[text]
    place = location(text)
    if isinstance(place, Path) and not place.exists():
        raise InputError(
            f"{text}: expected a recipe in TOML on the machine of this run, found nothing there; a deployed run reads "
            "the file where its worker runs: put it there, or on S3, and pass that path or URL"
        )
    with reading_inputs(place):
        lines = read_lines(place, "a recipe in TOML")
    try:
        recipe = recipe_from_toml("\n".join(lines))
    except ValueError as error:
        raise InputError(f"{text}: {error}; affwild2 recipes show prints valid files") from error
    if recipe.name in RECIPES and not recipe.is_part_of(RECIPES[recipe.name]):
        raise InputError(
            f"{text}: name: expected another name than {recipe.name}, whose values differ; write a name of your own"
        )
    return recipe
