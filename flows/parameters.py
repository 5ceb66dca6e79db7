"""Parameters that flows share: what is accepted, checked before any work starts, and what a form says of each.

A flow's own parameters are annotated where it is defined. ``described`` writes the descriptions into a docstring, which
is where Prefect looks for them.
"""

import inspect
from collections.abc import Callable
from typing import Annotated, Any, get_type_hints

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic.fields import FieldInfo

from data_contracts.errors import InputError
from data_contracts.files.locations import LocationParameter
from data_contracts.files.urls import StoreParameter
from models.backbones.registry import REGISTRY, get_spec


def _refuse_nothing(value: Any) -> Any:
    """What was not set where a deployment was made arrives as an empty text, which as a path would be this folder."""
    if value == "" or value == []:
        raise InputError(
            "expected a path or URL, got nothing; give the parameter, or set the variable that prefect.yaml takes it "
            "from and deploy again"
        )
    return value


def _refuse_unknown_backbone(name: str) -> str:
    get_spec(name)
    return name


_Place = Annotated[LocationParameter, BeforeValidator(_refuse_nothing)]
DataFolder = Annotated[
    _Place,
    Field(description="Folder in the organisers' layout, or a folder of videos: a path or s3:// URL"),
]
Videos = Annotated[
    list[_Place],
    BeforeValidator(_refuse_nothing),
    Field(description="Video files, or folders of them: paths or s3:// URLs"),
]
PredictionsFolder = Annotated[
    _Place,
    Field(description="Folder for the predictions: a path or s3:// URL"),
]
StoreUrl = Annotated[
    StoreParameter,
    BeforeValidator(_refuse_nothing),
    Field(description="Store of features, heads and results: a path, file:// or s3:// URL"),
]
Annotations = Annotated[
    _Place,
    Field(description="The organisers' annotation folder, or one that holds it: a path or s3:// URL"),
]
TestList = Annotated[
    _Place,
    Field(description="The organisers' list of test subjects, or of frames for mtl: a path or s3:// URL"),
]
BackboneName = Annotated[
    str,
    AfterValidator(_refuse_unknown_backbone),
    Field(description="Network that makes features of faces", json_schema_extra={"enum": list(REGISTRY)}),
]
WeightsFile = Annotated[
    str | None, Field(description="Safetensors file to use instead of the installed weights of the backbone")
]
Heads = Annotated[list[str] | None, Field(description="Names of heads to use; none: the one of each task")]
Limit = Annotated[int | None, Field(ge=1, description="Take only so many videos, subjects or pictures; none: all")]
DaskAddress = Annotated[
    str | None,
    Field(
        description="Address of a Dask scheduler, tcp://HOST:8786; none: workers on the machine that runs the flow",
        pattern=r"^[a-z]+://[^/\s]+$",
    ),
]
Workers = Annotated[
    int | None, Field(ge=1, le=1024, description="Worker processes on the machine that runs the flow; none: one a core")
]


def described(function: Callable[..., Any]) -> str:
    """Docstring of a function with a line for each of its parameters that an annotation describes."""
    hints = get_type_hints(inspect.unwrap(function), include_extras=True)
    lines = [f"    {name}: {text}" for name, hint in hints.items() if (text := _description(hint))]
    return "\n".join([inspect.getdoc(function) or "", "", "Args:", *lines])


def _description(hint: Any) -> str | None:
    fields = [part for part in getattr(hint, "__metadata__", ()) if isinstance(part, FieldInfo)]
    return next((field.description for field in fields if field.description), None)
