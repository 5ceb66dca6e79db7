"""Recipes as TOML: written with every value, read strictly."""

import dataclasses
import json
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from data_contracts.vocabulary import BRANCHES_OF_TASK, TaskName
from models.decisions.recipes import PostProcessingRecipe
from models.heads.recipes import HeadRecipe, TaskRecipe
from models.recipes.recipe import Recipe

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

# Types of pydantic's errors whose messages do not speak of TOML.
_MESSAGES = {
    "dataclass_type": "expected a table",
    "missing": "expected a value, found none",
    "unexpected_keyword_argument": "unknown key",
}


@dataclass(frozen=True)
class _TaskTable:
    """The table of a task. ``head``: the parts of its head."""

    head: tuple[HeadRecipe, ...]
    postprocessing: PostProcessingRecipe


@dataclass(frozen=True)
class _File:
    """The content of a file, as pydantic reads it."""

    # Refuse unknown keys, also in nested tables.
    __pydantic_config__: ClassVar = {"extra": "forbid"}

    name: str
    version: int
    summary: str
    as_published: bool = False
    expr: _TaskTable | None = None
    va: _TaskTable | None = None
    au: _TaskTable | None = None
    mtl: _TaskTable | None = None


def recipe_to_toml(recipe: Recipe, *, tasks: Collection[TaskName] | None = None) -> str:
    """Return the recipe with all values, or with those of some tasks, as ``recipe_from_toml`` reads it.

    A field that is None is left out: it is the default of the field.
    """
    lines = [f"{name} = {_format(getattr(recipe, name))}" for name in ("name", "version", "summary", "as_published")]
    for task in recipe.tasks:
        if tasks is None or task in tasks:
            for part in recipe.heads[task].parts:
                lines += ["", f"[[{task}.head]]", *_format_table(_fields(part), f"{task}.head")]
            path = f"{task}.postprocessing"
            lines += ["", f"[{path}]", *_format_table(_fields(recipe.postprocessing[task]), path)]
    return "\n".join(lines) + "\n"


def _fields(part: HeadRecipe | PostProcessingRecipe) -> dict[str, Any]:
    """Return the fields of a part of a recipe, without None, and without the name, which is the recipe's."""
    return dataclasses.asdict(
        part, dict_factory=lambda pairs: {n: value for n, value in pairs if value is not None and n != "name"}
    )


def _format_table(table: Mapping[str, Any], path: str) -> list[str]:
    """Return the lines of a table; tables in it come last, as TOML requires."""
    lines = [f"{name} = {_format(value)}" for name, value in table.items() if not isinstance(value, Mapping)]
    for name, value in table.items():
        if isinstance(value, Mapping):
            lines += ["", f"[{path}.{name}]", *_format_table(value, f"{path}.{name}")]
    return lines


def _format(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_format, value))}]"
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{name} = {_format(one)}' for name, one in value.items())} }}"
    # JSON writes texts, numbers and booleans as TOML does.
    return json.dumps(value, ensure_ascii=False)


def recipe_from_toml(text: str) -> Recipe:
    """Return the recipe that a TOML text describes. Fields with a default may be left out.

    Raises:
        ValueError: it is not TOML, a key is unknown or missing, or a value has a wrong type or range; one line that
            begins with the key.
    """
    # Commands that read no recipe start without pydantic.
    from pydantic import TypeAdapter, ValidationError

    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"expected TOML, got: {error}") from error
    for task in BRANCHES_OF_TASK:
        _complete(content.get(task), task, content.get("name"))
    try:
        # As JSON, because a strict reader of Python values refuses a list where it expects a tuple. No field is a date.
        text = json.dumps(content, default=lambda date: {"date": str(date)})
        read = TypeAdapter(_File).validate_json(text, strict=True)
    except ValidationError as error:
        raise ValueError(_first_mistake(error.errors(), content)) from error
    tables = {task: table for task in BRANCHES_OF_TASK if (table := getattr(read, task))}
    if not tables:
        raise ValueError(f"expected a table of a task ({', '.join(BRANCHES_OF_TASK)}), found none")
    heads = {task: TaskRecipe(table.head) for task, table in tables.items()}
    postprocessing = {task: table.postprocessing for task, table in tables.items()}
    return Recipe(read.name, read.version, read.summary, heads, postprocessing, read.as_published)


def _complete(table: Any, task: TaskName, name: Any) -> None:
    """Turn a single table of the head into a list, and give the post-processing the name of the recipe."""
    if not isinstance(table, dict):
        return
    if isinstance(head := table.get("head"), dict):
        table["head"] = [head]
    if isinstance(rules := table.get("postprocessing"), dict) and rules.setdefault("name", name) != name:
        raise ValueError(f"{task}.postprocessing.name: expected no name, which is the recipe's, got {rules['name']!r}")


def _first_mistake(mistakes: Sequence["ErrorDetails"], content: Mapping[str, Any]) -> str:
    """Return the key of the first mistake, what was expected, and what was found. Unknown keys come first."""
    first = min(mistakes, key=lambda one: one["type"] != "unexpected_keyword_argument")
    key = _key(first, content)
    if first["type"] == "value_error":
        # A dataclass refused the value; most messages begin with its field.
        message = str(first["ctx"]["error"])
        return f"{key}.{message}" if message.partition(":")[0].isidentifier() else f"{key}: {message}"
    if first["type"] in _MESSAGES:
        return f"{key}: {_MESSAGES[first['type']]}"
    # A value that may have several types has a mistake for each; the longest key is that of the type that fits best.
    keys = [_key(one, content) for one in mistakes]
    key = max((one for one in keys if one.startswith(key)), key=len)
    found = [one for one, of_key in zip(mistakes, keys, strict=True) if of_key == key]
    messages = [one["msg"].removeprefix("Input should be ") for one in found]
    return f"{key}: expected {' or '.join(messages)}, got {found[0]['input']!r}"


def _key(mistake: "ErrorDetails", content: Any) -> str:
    """Return the key of a mistake: names of tables with dots between them, positions in lists from 1."""
    key = ""
    for step in mistake["loc"]:
        if isinstance(content, dict):
            key, content = f"{key}.{step}", content.get(str(step))
        elif isinstance(content, list) and isinstance(step, int):
            # The only part of a head has no number.
            key, content = f"{key} {step + 1}" if len(content) > 1 else key, content[step]
        # Other steps are names of types in a union.
    return key.removeprefix(".")
