"""The ``affwild2`` command: every flow and every small command, made from the dataclasses of their parameters.

Help must answer at once, so this module imports only Click and the definitions; a command imports its own module.
"""

import contextlib
import functools
import gc
import importlib
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import Field
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin

import click
from click.shell_completion import get_completion_class

from data_contracts.errors import InputError
from data_contracts.files.credentials import NoCredentials
from data_contracts.settings import LOG_FORMAT, check_dask_address
from flows.commands.parameters import (
    CompareParameters,
    ConvertModelParameters,
    DownloadSubmissionParameters,
    ExportHeadParameters,
    ExportModelParameters,
    FetchModelParameters,
    ForgetParameters,
    ImportFeaturesParameters,
    ListModelsParameters,
    ListRecipesParameters,
    ReportParameters,
    ServeParameters,
    ShowRecipeParameters,
    SimulateParameters,
    StatusParameters,
    VerifyParameters,
    ViewParameters,
)
from flows.options import Option, SchedulerAddress, describe, is_required, read_options, refuse_url
from flows.parameters import FLOWS

PROGRAM = "affwild2"
# Name of an option -> its value; locations are texts.
Values = Mapping[str, Any]
# Command -> its parameters and the function that takes them and returns the exit code.
_COMMANDS: dict[str, tuple[type, str]] = {
    "import-features": (ImportFeaturesParameters, "flows.commands.import_features:import_features"),
    "simulate": (SimulateParameters, "flows.commands.simulate:simulate"),
    "verify": (VerifyParameters, "flows.commands.verify:verify"),
    "status": (StatusParameters, "flows.commands.status:print_status"),
    "report": (ReportParameters, "flows.pages.report:write_store_report"),
    "view": (ViewParameters, "flows.pages.view:view"),
    "compare": (CompareParameters, "flows.pages.compare:compare"),
    "serve": (ServeParameters, "flows.pages.serve:serve"),
    "forget": (ForgetParameters, "flows.commands.forget:forget"),
    "models list": (ListModelsParameters, "flows.commands.models:list_models"),
    "models fetch": (FetchModelParameters, "flows.commands.models:fetch_model"),
    "models convert": (ConvertModelParameters, "flows.commands.models:convert_model"),
    "models export": (ExportModelParameters, "flows.commands.exports:export_models"),
    "heads export": (ExportHeadParameters, "flows.commands.exports:export_heads"),
    "recipes": (ListRecipesParameters, "flows.commands.recipes:list_recipes"),
    "recipes show": (ShowRecipeParameters, "flows.commands.recipes:show_recipe"),
    "download submission": (DownloadSubmissionParameters, "flows.commands.download:download_submission"),
}
# Functions of commands whose user waits for an answer: they do not wait long for a server.
_ANSWER_SOON = (
    "verify",
    "print_status",
    "write_store_report",
    "compare",
    "list_models",
    "export_heads",
    "list_recipes",
    "show_recipe",
    "download_submission",
)
# Functions that wait for requests: they are at work without any progress.
_WAIT = ("serve",)
# Commands whose result is also available as a JSON object.
_WITH_JSON = ("status", "verify", "compare", "models list", "recipes", "score", "rescore")
# Command and option of other commands that it does not have -> its own option.
_INSTEAD = {(f"{PROGRAM} fit", "--backbone"): "--features-variant"}
# Title in the help of the program -> commands, in the order in which they are used.
_SECTIONS = {
    "Predictions": ("demo", "score", "view", "rescore"),
    "Heads and submissions": (
        "extract",
        "import-features",
        "fit",
        "recipes",
        "compare",
        "submit",
        "verify",
        "download",
        "reproduce",
        "simulate",
    ),
    "Backbones and exports": ("models", "pretrain", "heads"),
    "Stores": ("status", "report", "serve", "forget"),
}
# Groups that are not commands themselves.
_GROUPS = {
    "models": "List, download, convert and export backbones.",
    "heads": "Export heads of a store.",
    "download": "Download results from a store to this machine.",
}


class _Group(click.Group):
    """A group that lists its commands in the order in which they are used, not by the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


class _Program(_Group):
    """The group of all commands; its help lists them in sections."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for names in _SECTIONS.values() for name in names]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        column = max(map(len, self.commands))
        # Two spaces before the names, between the columns and, as Click does, at the end.
        limit = formatter.width - column - 6
        for title, names in _SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(n.ljust(column), self.commands[n].get_short_help_str(limit)) for n in names])


class _RefuseEmpty(click.ParamType):
    """A type of values that may not be empty: an unset variable of a script would be the current folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and not value.strip():
            is_optional = isinstance(param, click.Option) and not param.required
            hint = ", or leave the option out" if is_optional else ""
            self.fail(f"expected a value, got nothing; pass one{hint}.", param, ctx)
        return super().convert(value, param, ctx)


class _Text(_RefuseEmpty, click.types.StringParamType):
    """Text that is not empty."""


class _Path(_RefuseEmpty, click.Path):
    """A path or URL that is not empty."""


class _LocalPath(_Path):
    """A path that is not a URL."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return super().convert(refuse_url(value), param, ctx)
        except InputError as error:
            self.fail(f"{error}.", param, ctx)


class _SchedulerAddress(_Text):
    """The address of a Dask scheduler."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return check_dask_address(super().convert(value, param, ctx))
        except InputError as error:
            self.fail(f"{error}.", param, ctx)


def make_command(
    name: str, definition: type, run: Callable[[Values], int], *, has_json: bool = False, is_group: bool = False
) -> click.Command:
    """Make a command with an option for every field of a dataclass, and the options of its output.

    Args:
        run: receives the values of all fields and returns the exit code.
        has_json: the command has a result for ``--json``.
        is_group: the command has commands of its own.
    """
    text, examples = describe(definition)

    def callback(*, quiet: bool, json: bool = False, **values: object) -> None:
        if click.get_current_context().invoked_subcommand is not None:
            return
        with _choose_output(quiet, json):
            # Click returns a tuple for a repeatable option, which is empty if the option is missing.
            code = run({name: (list(v) or None) if isinstance(v, tuple) else v for name, v in values.items()})
        sys.exit(code)

    options = [_flag("quiet", "Print only problems and the last line, and no progress.")]
    if has_json:
        options.append(_flag("json", "Print the result as a JSON object; all else goes to standard error."))
    kind: Any = functools.partial(_Group, invoke_without_command=True) if is_group else click.Command
    command: click.Command = kind(
        name,
        callback=callback,
        params=[*(_parameter(*each) for each in read_options(definition)), *options],
        help=text,
        # Click keeps the lines of a paragraph that begins with a backspace.
        epilog="\n".join(["\b", "Examples:", *(f"  {example}" for example in examples)]) if examples else None,
    )
    return command


def _flag(name: str, text: str) -> click.Option:
    return click.Option([f"--{name}"], is_flag=True, help=text)


def _choose_output(quiet: bool, json: bool) -> contextlib.AbstractContextManager[None]:
    if not (quiet or json):
        return contextlib.nullcontext()
    from flows.engine.console import choose_output

    return choose_output(is_quiet=quiet, is_json=json)


def _parameter(field: Field[Any], annotation: Any, option: Option) -> click.Parameter:
    kind, is_list = _click_type(annotation, option)
    required = is_required(field)
    default: Any = {} if required else {"default": field.default}
    if option.is_argument:
        nargs = -1 if is_list else 1
        required = required and not option.may_be_left_out
        return click.Argument([field.name], nargs=nargs, required=required, type=kind, help=option.help, **default)
    name = (option.command_line_name or field.name).replace("_", "-")
    return click.Option(
        [f"--{name}/--no-{name}" if option.has_negation else f"--{name}", field.name],
        type=kind,
        help=f"{option.help} Repeatable." if is_list else option.help,
        required=required,
        is_flag=kind is click.BOOL,
        multiple=is_list,
        metavar="N" if isinstance(kind, click.IntRange | click.FloatRange) else None,
        show_default=field.default is not None and (field.default is not False or option.has_negation),
        **default,
    )


def _click_type(hint: Any, option: Option) -> tuple[click.ParamType, bool]:
    """Return the type that Click converts a text to, and whether the option is repeatable."""
    origin = get_origin(hint)
    if origin is Annotated:
        if any(isinstance(part, NoCredentials) for part in hint.__metadata__):
            return _Path(), False
        if any(isinstance(part, SchedulerAddress) for part in hint.__metadata__):
            return _SchedulerAddress(), False
        return _click_type(get_args(hint)[0], option)
    if origin in (Union, UnionType):
        return _click_type(next(one for one in get_args(hint) if one is not type(None)), option)
    if origin is list:
        return _click_type(get_args(hint)[0], option)[0], True
    if origin is Literal or option.choices:
        return click.Choice(option.choices or get_args(hint)), False
    limits = option.minimum, option.maximum
    if hint is int and limits != (None, None):
        return click.IntRange(*limits), False  # type: ignore[arg-type]
    if hint is float and limits != (None, None):
        return click.FloatRange(*limits), False
    if hint is Path:
        return _LocalPath(path_type=Path), False
    return {bool: click.BOOL, int: click.INT, float: click.FLOAT}.get(hint, _Text()), False


def _run_flow(name: str, values: Values) -> int:
    from infra.prefect.runtime import has_server_url
    from infra.worker_processes import start_forking_for_new_store

    if not has_server_url():
        # It imports libraries while this process imports its own and reads the inputs.
        start_forking_for_new_store(**{option: values.get(option) for option in ("store", "out", "dask_address")})
    from flows.commands.exit_codes import run_flow

    return run_flow(name, values)


def _run_function(target: str, definition: type, values: Values) -> int:
    from data_contracts.settings import answering_soon
    from flows.commands.exit_codes import guarded

    module, _, function = target.partition(":")

    def run() -> int:
        is_brief = function in _ANSWER_SOON or bool(values.get("dry_run"))
        with answering_soon() if is_brief else contextlib.nullcontext():
            return int(getattr(importlib.import_module(module), function)(definition(**values)))

    return guarded(run, shows_progress=function not in _WAIT)


def _show_completion(ctx: click.Context, option: click.Parameter, shell: str | None) -> None:
    completion = get_completion_class(shell) if shell else None
    if completion:
        click.echo(completion(app, {}, PROGRAM, f"_{PROGRAM.upper()}_COMPLETE").source())
        ctx.exit()


@click.group(
    PROGRAM,
    cls=_Program,
    help="Frame-level facial affect from videos: expressions, valence and arousal, action units.",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=f"Run {PROGRAM} COMMAND --help for the options and examples of a command.",
)
@click.option(
    "--show-completion",
    type=click.Choice(["bash", "zsh", "fish"]),
    is_eager=True,
    expose_value=False,
    callback=_show_completion,
    help=f'Print a completion script; for bash: eval "$({PROGRAM} --show-completion bash)".',
)
@click.version_option(package_name=PROGRAM, prog_name=PROGRAM)
def app() -> None:
    """Only groups the commands."""


for _name, _definition in FLOWS.items():
    app.add_command(make_command(_name, _definition, functools.partial(_run_flow, _name), has_json=_name in _WITH_JSON))
for _path, (_definition, _target) in _COMMANDS.items():
    *_parents, _name = _path.split()
    _parent: click.Group = app
    for _word in _parents:
        if _word not in _parent.commands:
            _parent.add_command(_Group(_word, help=_GROUPS[_word]))
        _parent = cast(click.Group, _parent.commands[_word])
    _run = functools.partial(_run_function, _target, _definition)
    _is_group = any(_other.startswith(f"{_path} ") for _other in _COMMANDS)
    _parent.add_command(make_command(_name, _definition, _run, has_json=_path in _WITH_JSON, is_group=_is_group))


def _handle_names_in_utf8() -> None:
    """Start this command again with UTF-8 file names if the locale has another encoding, as with ``LC_ALL=C``.

    File names are bytes. In UTF-8 mode, Python also passes on names that are not UTF-8.
    """
    if sys.getfilesystemencoding().lower() != "utf-8" and os.environ.get("PYTHONUTF8") != "1":
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, sys.orig_argv)


def _print_error(text: str) -> None:
    if os.environ.get(LOG_FORMAT) == "json":
        from flows.engine.console import print_error

        print_error(text)
    else:
        click.echo(text, err=True)


def main() -> None:
    """Run the ``affwild2`` script. Wrong options end it with one line and code 2."""
    _handle_names_in_utf8()
    try:
        sys.exit(app(prog_name=PROGRAM, standalone_mode=False))
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
    except click.ClickException as error:
        command = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else PROGRAM
        message = error.format_message()
        message = message if message.endswith((".", "?", "?)")) else f"{message}."
        if isinstance(error, click.NoSuchOption) and (name := _INSTEAD.get((command, error.option_name))):
            message = f"No such option '{error.option_name}'. Use {name}."
        _print_error(f"{command}: {message} Run {command} --help for help.")
    except click.Abort:
        from infra.interruption import EXIT_INTERRUPTED, RESUME

        _print_error(f"{PROGRAM}: interrupted; {RESUME}")
        sys.exit(EXIT_INTERRUPTED)
    finally:
        # Otherwise Python would search all objects of all libraries for garbage, several times, before it ends.
        gc.freeze()
    sys.exit(2)


if __name__ == "__main__":
    main()
