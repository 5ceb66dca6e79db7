"""Every option of every command, with each kind of value: on the command line, in the function, and in the form."""

import functools
from dataclasses import MISSING, fields
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from pydantic import ValidationError

from flows.commands import command_line
from flows.commands.command_line import make_command
from flows.options import takes
from flows.parameters import FLOWS

DEFINITIONS = FLOWS | {path: definition for path, (definition, _) in command_line._COMMANDS.items()}
TEXTS = {"dask_address": "tcp://host:8786", "scale": "0.01", "recipe": "paper"}


def make(name):
    """Make a command that returns the parameters that its function receives, and the values that it passes."""
    definition, received = DEFINITIONS[name], []
    receive = takes(definition)(received.append) if name in FLOWS else lambda **v: received.append(definition(**v))

    def run(values):
        receive(**values)
        received.append(values)
        return 0

    return make_command(name, definition, run), received


def legal_texts(option):
    """Return each choice, the limits of a number, or a text."""
    kind = option.type
    if isinstance(kind, click.Choice):
        return list(kind.choices)
    if isinstance(kind, click.IntRange | click.FloatRange):
        return [str(kind.min), str(1000 if kind.max is None else kind.max)]
    return ["0.5"] if kind is click.FLOAT else [TEXTS.get(option.name, "x")]


def wrong_texts(option):
    """Return values beyond the choices or limits, and nothing."""
    kind = option.type
    if isinstance(kind, click.Choice):
        return ["typo", kind.choices[0].upper(), ""]
    if isinstance(kind, click.IntRange | click.FloatRange):
        return [str(kind.min - 1), *([] if kind.max is None else [str(kind.max + 1)]), "typo", ""]
    return ["typo", ""] if kind is click.FLOAT else [""]


def words_of(command, option, texts, *, arguments_first):
    """Return a command line with the required options, and with an option once for each of the texts."""
    given = {other: legal_texts(other)[:1] for other in command.params if other.required} | {option: texts}
    arguments = [text for other in command.params if isinstance(other, click.Argument) for text in given.get(other, ())]
    options = []
    for other in given:
        for text in given[other] if isinstance(other, click.Option) else ():
            options += [other.opts[0]] if other.is_flag else [other.opts[0], text]
    return [*arguments, *options] if arguments_first else [*options, *arguments]


def all_options():
    for name in DEFINITIONS:
        known = {field.name for field in fields(DEFINITIONS[name])}
        for option in (one for one in make(name)[0].params if one.name in known):
            yield pytest.param(name, option.name, id=f"{name} {option.name}")


@functools.cache
def form_of(name):
    from flows import deployments

    return getattr(deployments, name).parameters.model_dump_for_openapi()


def fill_form(name, **values):
    """Validate values as a Prefect server does before it starts a run."""
    from prefect.utilities.schema_tools.validation import validate

    shown = {key: str(value) if isinstance(value, Path) else value for key, value in values.items()}
    validate(shown, form_of(name), raise_on_error=True, ignore_required=True)


def as_received(text, found):
    """The text of a value. Flows make paths absolute, commands that need no workers may keep them."""
    return str(found) if isinstance(found, Path) and found.absolute() == Path(text).absolute() else text


@pytest.mark.parametrize(("name", "parameter"), list(all_options()))
def test_each_legal_value_and_the_default_reach_the_function_and_pass_the_form(name, parameter):
    command, received = make(name)
    (option,) = (one for one in command.params if one.name == parameter)
    is_list = option.nargs == -1 or getattr(option, "multiple", False)
    default = next(field.default for field in fields(DEFINITIONS[name]) if field.name == parameter)
    cases = [[text] for text in legal_texts(option)] + ([legal_texts(option)[:1] * 2] if is_list else [])
    for texts in [*cases, *([] if option.required else [[]])]:
        for arguments_first in (True, False):
            received.clear()
            words = words_of(command, option, texts, arguments_first=arguments_first)
            finished = CliRunner().invoke(command, words)
            assert finished.exit_code == 0, (words, finished.output, finished.exception)
            parameters, values = received
            found = getattr(parameters, parameter)
            if not texts:
                # Without a default, the option is a list that may be left out.
                expected = default.absolute() if isinstance(default, Path) and name in FLOWS else default
                assert found == (None if default is MISSING else expected)
            elif is_list:
                assert [str(one) for one in found] == [as_received(*pair) for pair in zip(texts, found, strict=True)]
            elif getattr(option, "is_flag", False):
                assert found is True
            else:
                assert str(found) == as_received(texts[0], found) or float(found) == float(texts[0])
        if name in FLOWS:
            fill_form(name, **{parameter: values[parameter]})


@pytest.mark.parametrize(("name", "parameter"), list(all_options()))
def test_each_wrong_value_is_refused_by_name_on_the_command_line_and_in_the_form(name, parameter):
    from prefect.utilities.schema_tools.validation import ValidationError as RefusedByForm

    command, received = make(name)
    (option,) = (one for one in command.params if one.name == parameter)
    for text in [] if getattr(option, "is_flag", False) else wrong_texts(option):
        finished = CliRunner().invoke(command, words_of(command, option, [text], arguments_first=True))
        assert finished.exit_code == 2 and not received, (text, finished.output)
        shown = option.opts[0] if isinstance(option, click.Option) else option.make_metavar(click.Context(command))
        assert f"Invalid value for '{shown}'" in finished.output
        if name in FLOWS and text and not isinstance(option.type, click.types.StringParamType | click.Path):
            value = text if isinstance(option.type, click.Choice) or text == "typo" else float(text)
            with pytest.raises(RefusedByForm, match=parameter):
                fill_form(name, **{parameter: value})


@pytest.mark.parametrize("name", DEFINITIONS)
def test_a_url_is_no_path_on_this_machine(name):
    """As a path, it would be a folder with the name of its protocol."""
    command, received = make(name)
    local = [one for one in command.params if isinstance(one.type, click.Path) and one.type.type is Path]
    for option in local:
        words = words_of(command, option, ["s3://bucket/x"], arguments_first=True)
        finished = CliRunner().invoke(command, words)
        assert finished.exit_code == 2 and not received
        assert "expected a path on this machine, got 's3://bucket/x'" in finished.output
        if name in FLOWS:
            given = {one.name: legal_texts(one)[0] for one in command.params if one.required}
            with pytest.raises(ValidationError, match=rf"{option.name}\n.*expected a path on this machine"):
                takes(DEFINITIONS[name])(received.append)(**given | {option.name: "s3://bucket/x"})


def test_null_is_a_value_of_missing_faces():
    """``prefect deployment run --param missing_faces=null`` passes null, not a text."""
    for name, given in (("score", {}), ("rescore", {"store": "s"})):
        received = []
        fill_form(name, missing_faces=None)
        takes(FLOWS[name])(received.append)(videos=["x"], out="out", missing_faces=None, **given)
        assert received[0].missing_faces == "null"
