"""Options of flows and commands, each defined once: a field of a dataclass with an ``Option`` in its annotation.

The command line, the Prefect forms and the validation of values are derived from these fields. Defining options imports
nothing heavy, so that help answers at once; ``takes`` imports pydantic.
"""

import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, dataclass, fields
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast, get_type_hints

from data_contracts.errors import InputError
from data_contracts.files.credentials import NoCredentials
from data_contracts.files.locations import absolute_location
from data_contracts.settings import DASK_ADDRESS_BEGINNING, check_dask_address

P = ParamSpec("P")
Options = TypeVar("Options")
R = TypeVar("R")
EXAMPLES = "Examples:"


@dataclass(frozen=True)
class Option:
    """Help and limits of an option. Its name, type and default are those of the field.

    Attributes:
        help: one or two sentences.
        minimum: smallest number that is accepted.
        maximum: largest number that is accepted.
        choices: names that are accepted; for a fixed few, use a ``Literal`` type instead.
        is_argument: the command line takes the value by position, without ``--NAME``.
        may_be_left_out: the command line accepts a list without any value, which becomes None.
        command_line_name: name on the command line where it differs: a list ``heads`` is a repeated ``--head``.
        has_negation: the command line also takes ``--no-NAME``.
    """

    help: str
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    is_argument: bool = False
    may_be_left_out: bool = False
    command_line_name: str | None = None
    has_negation: bool = False

    # Makes pydantic expand an Option into the metadata that ``__iter__`` yields (``annotated_types.GroupedMetadata``).
    __is_annotated_types_grouped_metadata__ = True

    def __iter__(self) -> Iterator[object]:
        """Yield the description and the limits as pydantic expects them."""
        from pydantic import AfterValidator, BeforeValidator, Field

        show_choices = functools.partial(_show_choices, choices=self.choices) if self.choices else None
        yield Field(description=self.help, json_schema_extra=show_choices)
        yield from Field(ge=self.minimum, le=self.maximum).metadata
        if self.choices:
            yield AfterValidator(functools.partial(_refuse_unknown, choices=self.choices))
        yield BeforeValidator(_refuse_nothing)


@dataclass(frozen=True)
class DeployedFrom:
    """Annotation that makes pydantic refuse an empty value with the variable that prefect.yaml takes it from.

    The variable may not have been set when the flow was deployed; an empty path would be the current folder.
    """

    variable: str

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        hint = f", or set {self.variable} and deploy again"
        return core_schema.no_info_before_validator_function(
            functools.partial(_refuse_nothing, hint=hint, is_required=True), handler(source)
        )


class TextToLocation(NoCredentials):
    """Annotation that makes pydantic convert a path or URL to a location. Workers have another working directory."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(
            absolute_location,
            json_schema_input_schema=core_schema.str_schema(),
            serialization=core_schema.to_string_ser_schema(),
        )


class TextToRecipe(NoCredentials):
    """Annotation that makes pydantic find the TOML file of a recipe. Workers have another working directory."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        from tasks.recipe_files import to_absolute

        return core_schema.no_info_after_validator_function(to_absolute, handler(source))

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> Any:
        from tasks.recipe_files import TEXT

        return handler(schema) | {"pattern": TEXT}


class SchedulerAddress:
    """Annotation that makes pydantic refuse what is no address of a Dask scheduler."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(check_dask_address, handler(source))

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> Any:
        return handler(schema) | {"pattern": DASK_ADDRESS_BEGINNING}


class NullAsText:
    """Annotation that makes pydantic accept null for the text "null", because JSON and YAML read this word as null."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_before_validator_function(
            lambda value: "null" if value is None else value, handler(source)
        )

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> Any:
        return {"anyOf": [handler(schema), {"type": "null"}]}


class OnThisMachine:
    """Annotation that makes pydantic refuse a URL where a path is expected, and make the path absolute."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        absolute = core_schema.no_info_after_validator_function(Path.absolute, handler(source))
        return core_schema.no_info_before_validator_function(refuse_url, absolute)


def read_options(definition: Any) -> list[tuple[Field[Any], Any, Option]]:
    """Return the fields of a dataclass in their order, with the annotation and the option of each."""
    hints = get_type_hints(definition, include_extras=True)
    found = []
    for field in fields(definition):
        (option,) = (part for part in hints[field.name].__metadata__ if isinstance(part, Option))
        found.append((field, hints[field.name], option))
    return found


def is_required(field: Field[Any]) -> bool:
    """Return whether the option has no default."""
    return field.default is MISSING


def describe(definition: Any) -> tuple[str, list[str]]:
    """Return the text of the dataclass's docstring, and its examples, one command each."""
    text, _, examples = (inspect.getdoc(definition) or "").partition(EXAMPLES)
    return text.strip(), [line.strip() for line in examples.splitlines() if line.strip()]


def takes(definition: Callable[P, Options]) -> Callable[[Callable[[Options], R]], Callable[P, R]]:
    """Make a function of an options object a flow that takes each option as a parameter and validates all of them.

    The flow has the signature of the dataclass. Its docstring describes every parameter, because Prefect reads the
    descriptions of a form from there.
    """
    from pydantic import TypeAdapter

    signature = inspect.signature(definition)
    described = [f"    {field.name}: {option.help}" for field, _, option in read_options(definition)]

    def decorate(function: Callable[[Options], R]) -> Callable[P, R]:
        options: TypeAdapter[Options] = TypeAdapter(cast(Any, definition))

        @functools.wraps(function)
        def flow(*args: P.args, **kwargs: P.kwargs) -> R:
            return function(options.validate_python(signature.bind(*args, **kwargs).arguments))

        flow.__signature__ = signature  # type: ignore[attr-defined]
        flow.__doc__ = "\n".join([describe(definition)[0], "", "Args:", *described])
        return flow

    return decorate


def _refuse_unknown(name: str | None, *, choices: tuple[str, ...]) -> str | None:
    """Refuse another name than the choices; None is the default of an option that may be left out."""
    if name is not None and name not in choices:
        raise ValueError(f"expected one of {', '.join(choices)}, got {name!r}")
    return name


def refuse_url(value: Any) -> Any:
    """Refuse a URL: as a path it would be a folder named ``s3:``."""
    if isinstance(value, str) and "://" in value:
        raise InputError(f"expected a path on this machine, got {value!r}; pass a path")
    return value


def _show_choices(schema: dict[str, Any], *, choices: tuple[str, ...]) -> None:
    """Add the choices to the text in a JSON schema. A schema that also accepts null must not refuse it."""
    for one in schema.get("anyOf", [schema]):
        if one.get("type") == "string":
            one["enum"] = list(choices)


def _refuse_nothing(value: Any, *, hint: str = "", is_required: bool = False) -> Any:
    """Refuse an empty text, alone or in a list: as a path it would be the current folder."""
    texts = value if isinstance(value, list | tuple) else [value]
    if any(isinstance(text, str) and not text.strip() for text in texts) or (is_required and not texts):
        raise InputError(f"expected a value, got nothing; pass one{hint}")
    return value
