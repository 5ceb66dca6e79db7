"""One definition per option: what the command line, the Prefect forms and the flows make of it."""

import importlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, get_args

import click
import pytest
from click.testing import CliRunner
from pydantic import ValidationError

from data_contracts.errors import InputError
from data_contracts.files.locations import location
from flows import extract as extract_module
from flows import fit as fit_module
from flows.commands.command_line import make_command
from flows.options import Option, is_required, read_options, takes
from flows.parameters import FLOWS, ExtractParameters, RescoreParameters, scheduler_of
from tests.flows.commands.test_command_line import all_commands


@takes(RescoreParameters)
def received(parameters: RescoreParameters) -> RescoreParameters:
    return parameters


@pytest.mark.parametrize("name", FLOWS)
def test_every_flow_accepts_its_defaults(name):
    """The command line passes every option, also those that were left out."""
    definition, given = FLOWS[name], []
    values = {
        field.name: {"task": "expr", "goal": "emotion", "test_list": "list.txt", "videos": ["clip.mp4"]}.get(
            field.name, "x"
        )
        if is_required(field)
        else field.default
        for field, _, _ in read_options(definition)
    }
    takes(definition)(given.append)(**values)
    assert len(given) == 1


def test_an_option_is_one_edit(monkeypatch):
    """A field more is an option of the command, a parameter of the form, and a value that the flow receives."""
    from flows import deployments

    @dataclass(frozen=True)
    class Extended(ExtractParameters):
        """Extract features."""

        turn_degrees: Annotated[int, Option("Turn every frame before the search.", minimum=0, maximum=270)] = 0

    given = []

    @takes(Extended)
    def extract(parameters: Extended) -> None:
        given.append(parameters)

    command = make_command("extract", Extended, lambda values: extract(**values) or 0)
    shown = CliRunner().invoke(command, ["--help"]).output
    assert "--turn-degrees" in shown and "Turn every frame" in shown and "0<=x<=270" in shown
    assert CliRunner().invoke(command, ["DATA", "--store", "S", "--turn-degrees", "90"]).exit_code == 0
    assert CliRunner().invoke(command, ["DATA", "--store", "S", "--turn-degrees", "271"]).exit_code == 2
    with pytest.raises(ValidationError, match="less than or equal to 270"):
        extract("DATA", "S", turn_degrees=271)
    assert given == [Extended(Path.cwd() / "DATA", "S", turn_degrees=90)]

    monkeypatch.setattr(extract_module, "extract", extract)
    try:
        vars(deployments).pop("extract", None)
        form = deployments.extract.parameters
        assert form.properties["turn_degrees"] == {
            "default": 0, "description": "Turn every frame before the search.", "minimum": 0, "maximum": 270,
            "position": len(read_options(ExtractParameters)), "title": "turn_degrees", "type": "integer",
        }  # fmt: skip
        deployments.extract.fn("DATA", "S", turn_degrees=180)
    finally:
        vars(deployments).pop("extract", None)
    assert given[-1].turn_degrees == 180


@pytest.mark.parametrize("name", [name for name in FLOWS if name != "demo"])
def test_a_form_describes_every_parameter(name):
    from flows import deployments

    schema = getattr(deployments, name).parameters.model_dump()
    assert schema["required"]
    for parameter, shown in schema["properties"].items():
        assert shown["title"] == parameter
        assert len(shown["description"]) > 10, parameter
        assert {"type", "anyOf", "enum"} & set(shown), parameter
    if name == "extract":
        assert "affwild2 models list" in schema["properties"]["backbone"]["description"]
        assert schema["properties"]["min_face_px"]["minimum"] == 20


def test_text_becomes_locations_and_numbers():
    parameters = received(["a/b", Path("c"), "s3://bucket/x"], "store", "s3://bucket/out", settle_seconds="1.5")
    assert parameters.videos == [Path.cwd() / "a/b", Path.cwd() / "c", location("s3://bucket/x")]
    assert parameters.out == location("s3://bucket/out") and parameters.store == "store"
    assert parameters.settle_seconds == 1.5 and parameters.heads is None


@pytest.mark.parametrize("name", FLOWS)
def test_workers_with_another_working_directory_find_every_path(name):
    """Every option whose type is a path or a location becomes absolute."""
    given: list[object] = []
    paths, values = {}, {}
    for field, hint, _ in read_options(FLOWS[name]):
        if re.search(r"\b(Path|UPath)\b", str(hint)):
            is_list = "list[" in str(hint)
            values[field.name] = ["a/b"] if is_list else "a/b"
            paths[field.name] = [Path.cwd() / "a/b"] if is_list else Path.cwd() / "a/b"
        elif is_required(field):
            values[field.name] = {"task": "expr", "goal": "emotion"}.get(field.name, "x")
    takes(FLOWS[name])(given.append)(**values)
    assert paths and {path: getattr(given[0], path) for path in paths} == paths


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"videos": ["s4://bucket/x"]}, "expected a path, file:///FOLDER or s3://BUCKET/FOLDER"),
        ({"videos": [""]}, "expected a value, got nothing; pass one, or set AFFWILD2_VIDEOS and deploy again"),
        ({"videos": []}, "expected a value, got nothing; pass one, or set AFFWILD2_VIDEOS and deploy again"),
        ({"store": ""}, "expected a value, got nothing; pass one, or set AFFWILD2_STORE and deploy again"),
        ({"heads": ["expr", " "]}, "heads\n  Value error, expected a value, got nothing; pass one ["),
        ({"settle_seconds": -1}, "greater than or equal to 0"),
        ({"workers": 2000}, "less than or equal to 1024"),
        *(
            ({"dask_address": text}, f"expected the address of a Dask scheduler such as tcp://HOST:8786, {end}")
            for text, end in {
                "host": "with tcp or tls, got 'host'",
                "host:8786": "with tcp or tls, got 'host:8786'",
                "http://host:8787": "with tcp or tls, got 'http://host:8787'",
                "tcp://host:8786/": "with tcp or tls, got 'tcp://host:8786/'",
                "tcp://host:port": "with tcp or tls, got 'tcp://host:port'",
                "tcp://host:65536": "with tcp or tls, got 'tcp://host:65536'",
                "tcp:// host:8786": "with tcp or tls, got 'tcp:// host:8786'",
                "tcp://": "with tcp or tls, got 'tcp://'",
                "user:secret@host:8786": "with tcp or tls, got '***@host:8786'",
            }.items()
        ),
    ],
)
def test_wrong_values_are_refused(wrong, message):
    with pytest.raises(ValidationError, match=re.escape(message)):
        received(**({"videos": ["a"], "store": "store", "out": "out"} | wrong))


def test_addresses_of_schedulers_are_accepted():
    for text in (
        "tcp://host",
        "tcp://host:8786",
        "tls://10.0.0.1:1",
        "tcp://[::1]:65535",
        "tcp://a.b-c.svc.local:8786",
    ):
        assert received(["a"], "store", "out", dask_address=text).dask_address == text


def test_the_environment_sets_the_default_scheduler_unless_local_workers_are_requested(monkeypatch):
    both = {
        None: RescoreParameters([], "store", Path("out")),
        2: RescoreParameters([], "store", Path("out"), workers=2),
    }
    named = RescoreParameters([], "store", Path("out"), dask_address="tcp://named:8786", workers=2)
    monkeypatch.setenv("AFFWILD2_DASK_ADDRESS", "tcp://default:8786")
    assert {workers: scheduler_of(one) for workers, one in both.items()} == {None: "tcp://default:8786", 2: None}
    assert scheduler_of(named) == "tcp://named:8786"
    monkeypatch.setenv("AFFWILD2_DASK_ADDRESS", "")
    assert scheduler_of(both[None]) is None and scheduler_of(named) == "tcp://named:8786"


def test_unknown_names_are_refused_with_the_known_ones():
    with pytest.raises(ValidationError, match=r"kind\n.*expected one of mlp, tcn, transformer, got 'typo'"):
        fit_module.fit("expr", "S", "DATA", kind="typo")
    with pytest.raises(InputError, match=r"--backbone typo: expected .*\(emotion_lite0, .*\(none\), found none"):
        extract_module.extract("DATA", "S", backbone="typo")
    with pytest.raises(TypeError, match="unexpected keyword argument 'backbon'"):
        extract_module.extract("DATA", "S", backbon="emotion_lite0")


@pytest.mark.parametrize("name", FLOWS)
def test_forms_refuse_credentials_in_every_url(name):
    from flows import deployments

    properties = getattr(deployments, name).parameters.properties
    urls = {"data", "videos", "store", "out", "annotations", "test_list"} & set(properties)
    urls -= {"data"} if name == "pretrain" else {"out"} if name == "demo" else set()
    for url in urls:
        shown = properties[url]
        texts = (shown, shown.get("items", {}), *shown.get("anyOf", ()))
        (pattern,) = (text["pattern"] for text in texts if "pattern" in text)
        assert re.search(pattern, "s3://bucket/store") and not re.search(pattern, "s3://key:secret@bucket/store")


def options_with_text():
    """Every option of a command that takes text or a path."""
    for command in all_commands():
        for parameter in command.params:
            if isinstance(parameter.type, click.Path | click.types.StringParamType):
                yield pytest.param(command, parameter, id=f"{command.name} {parameter.name}")


@pytest.mark.parametrize(("command", "parameter"), list(options_with_text()))
def test_an_empty_value_on_the_command_line_is_refused_by_the_name_of_the_option(command, parameter):
    given = {other: "x" for other in command.params if other.required and other is not parameter}
    given = {
        other: other.type.choices[0] if isinstance(other.type, click.Choice) else text for other, text in given.items()
    } | {parameter: ""}
    arguments = [given[one] for one in command.params if one in given and isinstance(one, click.Argument)]
    for one, text in given.items():
        arguments += [one.opts[0], text] if isinstance(one, click.Option) else []
    with pytest.raises(click.UsageError) as refused:
        command.make_context(command.name, arguments)
    message = refused.value.format_message()
    name = parameter.opts[0] if isinstance(parameter, click.Option) else parameter.name.upper()
    assert name in message and "expected a value, got nothing; pass one" in message


@pytest.mark.parametrize("name", FLOWS)
def test_an_empty_value_in_a_form_is_refused_by_the_name_of_the_parameter(name):
    flow = getattr(importlib.import_module(f"flows.{name}"), name)
    values = {"videos": ["x"], "task": "va", "goal": "emotion"}
    required = {
        field.name: values.get(field.name, "x") for field, _, _ in read_options(FLOWS[name]) if is_required(field)
    }
    for field, annotation, _ in read_options(FLOWS[name]):
        if str in get_args(annotation) or Path in get_args(annotation) or "Location" in str(annotation):
            with pytest.raises(ValidationError, match=rf"{field.name}\n.*expected a value, got nothing; pass one"):
                flow(**required | {field.name: ""})
