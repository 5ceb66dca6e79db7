"""Recipes as TOML: written with every value, read strictly."""

import dataclasses
import json
import tomllib
import typing
from collections.abc import Collection, Mapping
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from data_contracts.vocabulary import BRANCHES_OF_TASK, TaskName
from models.decisions.recipes import PostProcessingRecipe
from models.heads.recipes import HeadRecipe, TaskRecipe
from models.recipes.recipe import Recipe

_TEXTS = {"name": str, "version": int, "summary": str}
_TYPES = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
# Fields of the parts that the recipe itself determines.
_LEFT_OUT = ("name",)


def recipe_to_toml(recipe: Recipe, *, tasks: Collection[TaskName] | None = None) -> str:
    """Return the recipe with all values, or with those of some tasks, as ``recipe_from_toml`` reads it.

    A field that is None is left out: it is the default of the field.
    """
    lines = [f"{name} = {_format(getattr(recipe, name))}" for name in (*_TEXTS, "as_published")]
    for task in recipe.tasks:
        if tasks is None or task in tasks:
            for part in recipe.heads[task].parts:
                lines += ["", f"[[{task}.head]]", *_fields(part, f"{task}.head")]
            lines += ["", f"[{task}.postprocessing]", *_fields(recipe.postprocessing[task], f"{task}.postprocessing")]
    return "\n".join(lines) + "\n"


def _fields(value: Any, path: str) -> list[str]:
    """Return lines of the fields of a dataclass, or of a dict; tables come last, as TOML requires."""
    lines: list[str] = []
    tables: list[str] = []
    pairs = value.items() if isinstance(value, Mapping) else ((f.name, getattr(value, f.name)) for f in _known(value))
    for name, one in pairs:
        if isinstance(one, Mapping) or dataclasses.is_dataclass(one):
            tables += ["", f"[{path}.{name}]", *_fields(one, f"{path}.{name}")]
        elif one is not None:
            lines.append(f"{name} = {_format(one)}")
    return lines + tables


def _known(definition: Any) -> list[dataclasses.Field[Any]]:
    return [one for one in dataclasses.fields(definition) if one.name not in _LEFT_OUT]


def _format(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_format, value))}]"
    if dataclasses.is_dataclass(value):
        pairs = ((one.name, getattr(value, one.name)) for one in dataclasses.fields(value))
        return f"{{ {', '.join(f'{name} = {_format(one)}' for name, one in pairs if one is not None)} }}"
    # JSON writes texts, numbers and booleans as TOML does.
    return json.dumps(value, ensure_ascii=False)


def recipe_from_toml(text: str) -> Recipe:
    """Return the recipe that a TOML text describes. Fields with a default may be left out.

    Raises:
        ValueError: it is not TOML, a key is unknown or missing, or a value has a wrong type or range; one line that
            begins with the key.
    """
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"expected TOML, got: {error}") from error
    _check_keys(content, "", known=(*_TEXTS, "as_published", *BRANCHES_OF_TASK), required=tuple(_TEXTS))
    given = {name: _read(content[name], kind, name) for name, kind in _TEXTS.items()}
    as_published = _read(content.get("as_published", False), bool, "as_published")
    heads: dict[TaskName, TaskRecipe] = {}
    postprocessing: dict[TaskName, PostProcessingRecipe] = {}
    for task in BRANCHES_OF_TASK:
        if task not in content:
            continue
        table = _read_table(content[task], task)
        _check_keys(table, task, known=("head", "postprocessing"), required=("head", "postprocessing"))
        parts = table["head"] if isinstance(table["head"], list) else [table["head"]]
        if not parts:
            raise ValueError(f"{task}.head: expected a table, found none")
        heads[task] = TaskRecipe(
            tuple(
                _read(part, HeadRecipe, f"{task}.head {number} of {len(parts)}" if len(parts) > 1 else f"{task}.head")
                for number, part in enumerate(parts, 1)
            )
        )
        postprocessing[task] = _read(table["postprocessing"], PostProcessingRecipe, f"{task}.postprocessing")
    if not heads:
        raise ValueError(f"expected a table of a task ({', '.join(BRANCHES_OF_TASK)}), found none")
    recipe = Recipe(given["name"], given["version"], given["summary"], heads, postprocessing, as_published)
    named = {task: one.replace(name=recipe.name) for task, one in postprocessing.items()}
    return dataclasses.replace(recipe, postprocessing=named)


def _read_table(value: Any, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{path}: expected a table, got {value!r}")
    return value


def _check_keys(table: Mapping[str, Any], path: str, *, known: Collection[str], required: Collection[str]) -> None:
    for name in table:
        if name not in known:
            raise ValueError(f"{_join(path, name)}: unknown key; expected one of {', '.join(known)}")
    for name in required:
        if name not in table:
            raise ValueError(f"{_join(path, name)}: expected a value, found none")


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _read(value: Any, hint: Any, path: str) -> Any:
    """Return a value of TOML as the type that a hint names.

    Raises:
        ValueError: it has another type, or the dataclass refuses it.
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return _read_any(value, [one for one in arguments if one is not NoneType], path)
    if origin is Literal:
        if value not in arguments or isinstance(value, bool):
            raise ValueError(f"{path}: expected one of {', '.join(map(str, arguments))}, got {value!r}")
        return value
    if origin is tuple:
        return _read_tuple(value, arguments, path)
    if origin is dict:
        pairs = _read_table(value, path).items()
        return {_read(name, arguments[0], path): _read(one, arguments[1], f"{path}.{name}") for name, one in pairs}
    if dataclasses.is_dataclass(hint):
        return _read_dataclass(value, hint, path)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not hint:
        raise ValueError(f"{path}: expected {_TYPES[hint]}, got {value!r}")
    return value


def _read_any(value: Any, hints: list[Any], path: str) -> Any:
    problems = []
    for hint in hints:
        try:
            return _read(value, hint, path)
        except ValueError as error:
            problems.append(str(error))
    expected = [problem.removeprefix(f"{path}: expected ").rpartition(", got ")[0] or problem for problem in problems]
    raise ValueError(f"{path}: expected {' or '.join(expected)}, got {value!r}" if len(problems) > 1 else problems[0])


def _read_tuple(value: Any, arguments: tuple[Any, ...], path: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise ValueError(f"{path}: expected a list, got {value!r}")
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(_read(one, arguments[0], path) for one in value)
    if len(value) != len(arguments):
        raise ValueError(f"{path}: expected a list of {len(arguments)} values, got {value!r}")
    return tuple(_read(one, hint, path) for one, hint in zip(value, arguments, strict=True))


def _read_dataclass(value: Any, definition: Any, path: str) -> Any:
    table, fields = _read_table(value, path), _known(definition)
    hints = typing.get_type_hints(definition)
    required = [f.name for f in fields if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING]
    _check_keys(table, path, known=[one.name for one in fields], required=required)
    given = {name: _read(one, hints[name], f"{path}.{name}") for name, one in table.items()}
    # A recipe of post-processing gets the name of the recipe that it is a part of.
    given |= {one.name: "" for one in dataclasses.fields(definition) if one.name in _LEFT_OUT}
    try:
        return definition(**given)
    except ValueError as error:
        raise ValueError(f"{path}.{error}") from error
