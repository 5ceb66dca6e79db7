"""The ``affwild2`` command: every flow and every small command, made from the dataclasses of their parameters.

Help must answer at once, so this module imports only Click and the definitions; a command imports its own module.
"""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import click
from click.shell_completion import get_completion_class

from data_contracts.files.credentials import NoCredentials
from flows.commands.parameters import (
    ConvertModelParameters,
    DownloadSubmissionParameters,
    ExportModelParameters,
    FetchModelParameters,
    ForgetParameters,
    ListModelsParameters,
    ReportParameters,
    StatusParameters,
    VerifyParameters,
)
from flows.options import OptionField, describe, read_options
from flows.parameters import FLOWS

PROGRAM = "affwild2"
_SHELLS = ("bash", "zsh", "fish")
# Command -> its parameters and the function that takes them and returns the exit code.
_COMMANDS: dict[str, tuple[type, str]] = {
    "verify": (VerifyParameters, "flows.commands.verify:verify"),
    "status": (StatusParameters, "flows.commands.status:print_status"),
    "report": (ReportParameters, "flows.commands.status:write_store_report"),
    "forget": (ForgetParameters, "flows.commands.forget:forget"),
    "models list": (ListModelsParameters, "flows.commands.models:list_models"),
    "models fetch": (FetchModelParameters, "flows.commands.models:fetch_model"),
    "models convert": (ConvertModelParameters, "flows.commands.models:convert_model"),
    "models export": (ExportModelParameters, "flows.commands.export_backbone:export_models"),
    "download submission": (DownloadSubmissionParameters, "flows.commands.download:download_submission"),
}
_GROUPS = {
    "models": "List, download, convert and export backbones.",
    "download": "Download results from a store to this machine.",
}


class _Group(click.Group):
    """A group that lists its commands in the order in which they are used, not by the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


def make_command(name: str, definition: type, run: Callable[[dict[str, Any]], int]) -> click.Command:
    """A command with an option for every field of a dataclass; ``run`` takes their values and returns the exit code."""
    text, examples = describe(definition)
    options = read_options(definition)

    def callback(**values: Any) -> None:
        given = {each.name: values[each.name] for each in options}
        # Click has a tuple, empty if nothing is given, for what may be repeated.
        sys.exit(run({name: (list(v) or None) if isinstance(v, tuple) else v for name, v in given.items()}))

    return click.Command(
        name,
        callback=callback,
        params=[_parameter(each) for each in options],
        help=text,
        # Click keeps the lines of a paragraph that begins with a backspace.
        epilog="\n".join(["\b", "Examples:", *(f"  {example}" for example in examples)]) if examples else None,
    )


def _parameter(field: OptionField) -> click.Parameter:
    option = field.option
    kind, is_list = _click_type(field.annotation, field)
    common: dict[str, Any] = {"type": kind, "help": option.help} | (
        {} if field.is_required else {"default": field.default}
    )
    if option.is_argument:
        return click.Argument([field.name], nargs=-1 if is_list else 1, required=field.is_required, **common)
    name = "--" + (option.command_line_name or field.name).replace("_", "-")
    return click.Option(
        [name, field.name],
        required=field.is_required,
        is_flag=kind is click.BOOL,
        multiple=is_list,
        metavar="NAME" if option.choices else "N" if isinstance(kind, click.IntRange | click.FloatRange) else None,
        show_default=field.default is not None and field.default is not False,
        **(common | ({"help": f"{option.help} Repeatable."} if is_list else {})),
    )


def _click_type(hint: Any, field: OptionField) -> tuple[click.ParamType, bool]:
    """The type that Click converts a text to, and whether there may be several."""
    origin, option = get_origin(hint), field.option
    if origin is Annotated:
        if any(isinstance(part, NoCredentials) for part in hint.__metadata__):
            return click.Path(), False
        return _click_type(get_args(hint)[0], field)
    if origin in (Union, UnionType):
        return _click_type(next(one for one in get_args(hint) if one is not type(None)), field)
    if origin is list:
        return _click_type(get_args(hint)[0], field)[0], True
    if origin is Literal or option.choices:
        return click.Choice(option.choices or get_args(hint)), False
    if hint in (int, float) and (option.minimum, option.maximum) != (None, None):
        limited: Any = click.IntRange if hint is int else click.FloatRange
        return limited(option.minimum, option.maximum), False
    if hint is Path:
        return click.Path(path_type=Path), False
    return {bool: click.BOOL, int: click.INT, float: click.FLOAT}.get(hint, click.STRING), False


def _run_flow(name: str) -> Callable[[dict[str, Any]], int]:
    def run(values: dict[str, Any]) -> int:
        from flows.commands.exit_codes import run_flow

        return run_flow(name, **values)

    return run


def _run_function(target: str, definition: type) -> Callable[[dict[str, Any]], int]:
    def run(values: dict[str, Any]) -> int:
        from flows.commands.exit_codes import guarded

        module, _, function = target.partition(":")
        return guarded(lambda: getattr(importlib.import_module(module), function)(definition(**values)))

    return run


def _show_completion(ctx: click.Context, option: click.Parameter, shell: str | None) -> None:
    completion = get_completion_class(shell) if shell else None
    if completion:
        click.echo(completion(app, {}, PROGRAM, f"_{PROGRAM.upper()}_COMPLETE").source())
        ctx.exit()


def _make_app() -> click.Group:
    group = _Group(
        PROGRAM,
        help="Frame-level facial affect from videos: expressions, valence and arousal, action units.",
        context_settings={"help_option_names": ["-h", "--help"]},
        no_args_is_help=True,
        epilog=f"Run {PROGRAM} COMMAND --help for the options and examples of a command.",
        params=[
            click.Option(
                ["--show-completion"],
                type=click.Choice(_SHELLS),
                is_eager=True,
                expose_value=False,
                callback=_show_completion,
                help=f'Print a completion script; for bash: eval "$({PROGRAM} --show-completion bash)".',
            )
        ],
    )
    for name, definition in FLOWS.items():
        group.add_command(make_command(name, definition, _run_flow(name)))
    for path, (definition, target) in _COMMANDS.items():
        *parents, name = path.split()
        parent: click.Group = group
        for one in parents:
            if one not in group.commands:
                group.add_command(_Group(one, help=_GROUPS[one], no_args_is_help=True))
            parent = group.commands[one]  # type: ignore[assignment]
        parent.add_command(make_command(name, definition, _run_function(target, definition)))
    return click.version_option(package_name=PROGRAM, prog_name=PROGRAM)(group)


app = _make_app()


def main() -> None:
    """Entry point of the ``affwild2`` script."""
    app(prog_name=PROGRAM)


if __name__ == "__main__":
    main()
