"""Options of flows and commands, each defined once: a field of a dataclass with an ``Option`` in its annotation.

The command line, the Prefect forms and the validation of values are derived from these fields. Defining options imports
nothing heavy, so that help answers at once; ``takes`` imports pydantic.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec, TypeVar, cast, get_type_hints

from data_contracts.errors import InputError
from data_contracts.files.credentials import NoCredentials
from data_contracts.files.locations import location

if TYPE_CHECKING:
    from pydantic import BaseModel

P = ParamSpec("P")
Options = TypeVar("Options")
R = TypeVar("R")
EXAMPLES = "Examples:"


@dataclass(frozen=True)
class Option:
    """What the command line and the Prefect forms say and accept, besides the type and the default of the field.

    Attributes:
        help: one or two sentences.
        minimum: smallest number that is accepted.
        maximum: largest number that is accepted.
        pattern: regular expression that a text must match.
        choices: names that are accepted; for a fixed few, use a ``Literal`` type instead.
        is_argument: the command line takes the value by position, without ``--NAME``.
        command_line_name: name on the command line where it differs: a list ``heads`` is a repeated ``--head``.
    """

    help: str
    minimum: float | None = None
    maximum: float | None = None
    pattern: str | None = None
    choices: tuple[str, ...] = ()
    is_argument: bool = False
    command_line_name: str | None = None


@dataclass(frozen=True)
class OptionField:
    """One option as its dataclass defines it. ``default`` is ``inspect.Parameter.empty`` if a value is required."""

    name: str
    annotation: Any
    default: Any
    option: Option

    @property
    def is_required(self) -> bool:
        """Whether there is no default."""
        return self.default is inspect.Parameter.empty


class TextToLocation(NoCredentials):
    """Annotation that makes pydantic convert a path or URL to a location."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(
            lambda value: location(_refuse_nothing(value)),
            json_schema_input_schema=core_schema.str_schema(),
            serialization=core_schema.to_string_ser_schema(),
        )


def read_options(definition: Any) -> list[OptionField]:
    """The options that a dataclass defines, in its order."""
    hints = get_type_hints(definition, include_extras=True)
    found = []
    for field in dataclasses.fields(definition):
        option = next(part for part in hints[field.name].__metadata__ if isinstance(part, Option))
        default = inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default
        found.append(OptionField(field.name, hints[field.name], default, option))
    return found


def describe(definition: Any) -> tuple[str, list[str]]:
    """The text of the dataclass's docstring, and its examples, one command each."""
    text, _, examples = (inspect.getdoc(definition) or "").partition(EXAMPLES)
    return text.strip(), [line.strip() for line in examples.splitlines() if line.strip()]


def takes(definition: Callable[P, Options]) -> Callable[[Callable[[Options], R]], Callable[P, R]]:
    """Make a function of an options object a flow that takes each option as a parameter and validates all of them.

    The flow has the signature of the dataclass. Its docstring describes every parameter, because Prefect reads the
    descriptions of a form from there.
    """
    options = read_options(definition)
    types = {each.name: _pydantic_type(each) for each in options}
    signature = inspect.Signature(
        [
            inspect.Parameter(
                each.name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=each.default, annotation=types[each.name]
            )
            for each in options
        ]
    )
    documentation = "\n".join(
        [describe(definition)[0], "", "Args:", *(f"    {o.name}: {o.option.help}" for o in options)]
    )

    def decorate(function: Callable[[Options], R]) -> Callable[P, R]:
        model = _model(function.__name__, options, types)

        @functools.wraps(function)
        def flow(*args: P.args, **kwargs: P.kwargs) -> R:
            given = model(**signature.bind(*args, **kwargs).arguments)
            values = {each.name: getattr(given, each.name) for each in options}
            return function(cast(Callable[..., Options], definition)(**values))

        flow.__signature__ = signature  # type: ignore[attr-defined]
        flow.__doc__ = documentation
        return flow

    return decorate


def _model(name: str, options: list[OptionField], types: dict[str, Any]) -> "type[BaseModel]":
    from pydantic import create_model

    fields: Any = {o.name: (types[o.name], ... if o.is_required else o.default) for o in options}
    return create_model(name, **fields)


def _pydantic_type(option_field: OptionField) -> Any:
    """The annotation with the limits of its option in the terms of pydantic."""
    from pydantic import AfterValidator, BeforeValidator, Field

    option = option_field.option
    parts: list[Any] = [
        Field(
            ge=option.minimum,
            le=option.maximum,
            pattern=option.pattern,
            description=option.help,
            json_schema_extra={"enum": list(option.choices)} if option.choices else None,
        )
    ]
    if option.choices:
        parts.append(AfterValidator(functools.partial(_refuse_unknown, choices=option.choices)))
    if option_field.is_required:
        parts.append(BeforeValidator(_refuse_nothing))
    return functools.reduce(lambda hint, part: Annotated[hint, part], parts, option_field.annotation)


def _refuse_unknown(name: str, *, choices: tuple[str, ...]) -> str:
    if name not in choices:
        raise ValueError(f"expected one of {', '.join(choices)}, got {name!r}")
    return name


def _refuse_nothing(value: Any) -> Any:
    """Refuse what an unset variable leaves in prefect.yaml: an empty path would be the current folder."""
    if value == "" or value == []:
        raise InputError(
            "expected a path or URL, got nothing; give the parameter, or set the variable that prefect.yaml takes it "
            "from and deploy again"
        )
    return value
