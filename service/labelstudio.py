"""What Label Studio sends to an ML backend, and what the service makes of it.

Label Studio sends the labelling configuration of the project as XML, and tasks whose data name a picture. The
service fetches nothing, so a picture must be in the task itself, as a `data:` URI.
"""

import binascii
from base64 import b64decode
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from pydantic import AliasChoices, BaseModel, Field

from service.errors import InvalidParameterError, UndecodableImageError, UnsupportedTypeError
from service.format_schemas import LabelStudioPrediction
from service.formats import FROM_NAME, TO_NAME
from service.manifest import Manifest

MAX_TASKS = 256
DEFAULT_CONFIG = (
    f'<View><Image name="{TO_NAME}" value="$image"/><RectangleLabels name="{FROM_NAME}" toName="{TO_NAME}"/></View>'
)
EXAMPLE_CONFIG = DEFAULT_CONFIG.replace("/></View>", '><Label value="airplane"/></RectangleLabels></View>')


class SetupRequest(BaseModel):
    """Body of POST /setup; the project's address and token, which Label Studio sends too, are not looked at."""

    label_config: str = Field(
        validation_alias=AliasChoices("schema", "label_config"),
        description="Labelling configuration of the project.",
        examples=[EXAMPLE_CONFIG],
    )


class SetupAnswer(BaseModel):
    """Answer of POST /setup."""

    model_version: str = Field(description="Name and version.", examples=["nano-nwpu/5"])


class Task(BaseModel):
    """A task of Label Studio."""

    data: dict[str, Any] = Field(
        description="Its picture is under the name that the Image of the labelling configuration has.",
        examples=[{"image": "data:image/png;base64,iVBORw0KGgo..."}],
    )


class PredictRequest(BaseModel):
    """Body of POST /predict; what else Label Studio sends is not looked at."""

    tasks: list[Task] = Field(max_length=MAX_TASKS)
    label_config: str = Field(
        DEFAULT_CONFIG,
        description="Labelling configuration of the project. Default: every class, on the picture `image`.",
        examples=[EXAMPLE_CONFIG],
    )


class PredictAnswer(BaseModel):
    """Answer of POST /predict."""

    results: list[LabelStudioPrediction] = Field(description="One for each task, in their order.")
    model_version: str = Field(description="Name and version.", examples=["nano-nwpu/5"])


class BackendHealth(BaseModel):
    """Answer of GET /health."""

    status: str = Field(examples=["UP"])
    model_class: str = Field(description="Name of the model.", examples=["nano-nwpu"])


@dataclass(frozen=True)
class Labelling:
    """The part of a labelling configuration that draws boxes on a picture.

    Attributes:
        from_name: of the RectangleLabels.
        to_name: of the Image.
        data_key: where the picture is in a task's data.
        labels: what may be drawn; empty where the tasks themselves name the labels.
    """

    from_name: str
    to_name: str
    data_key: str
    labels: tuple[str, ...]

    def classes(self, manifest: Manifest) -> frozenset[int] | None:
        """Ids of the classes to look for; None for all.

        Raises:
            InvalidParameterError: the model knows none of the labels.
        """
        if not self.labels:
            return None
        known = frozenset(index for index, name in enumerate(manifest.classes) if name in self.labels)
        if not known:
            raise InvalidParameterError(
                f"label_config: {manifest.name} knows none of the labels {', '.join(self.labels)[:200]}; "
                f"its classes are {', '.join(manifest.classes)}"
            )
        return known


def read_labelling(config: str) -> Labelling:
    """Find the RectangleLabels of an Image in a labelling configuration.

    Raises:
        InvalidParameterError: there is none, or the configuration is not sound.
    """
    root = _parse_xml(config)
    images = {name: image for image in root.iter("Image") if (name := image.get("name"))}
    for control in root.iter("RectangleLabels"):
        from_name, to_name = control.get("name"), control.get("toName", "")
        if not from_name or to_name not in images:
            continue
        value = images[to_name].get("value", "")
        if not value.startswith("$"):
            raise InvalidParameterError(f"label_config: the value of Image {to_name!r} is {value!r}, not a $name")
        labels = tuple(name for label in control.iter("Label") if (name := label.get("value")))
        return Labelling(from_name, to_name, value[1:], labels)
    raise InvalidParameterError(
        f"label_config: this model draws boxes, so it needs RectangleLabels on an Image, as in {EXAMPLE_CONFIG}"
    )


def _parse_xml(config: str) -> ElementTree.Element:
    """Parse without document types, whose entities can grow without bounds; no configuration has one."""
    if "<!DOCTYPE" in config:
        raise InvalidParameterError("label_config: a document type is not taken")
    try:
        return ElementTree.fromstring(config)
    except ElementTree.ParseError as error:
        raise InvalidParameterError(f"label_config: not XML: {error}") from error


def find_picture(task: Task, key: str) -> str:
    """The `data:` URI of a task's picture.

    Raises:
        InvalidParameterError: there is none, or a link to somewhere else.
    """
    value = task.data.get(key)
    if not isinstance(value, str):
        raise InvalidParameterError(f"data.{key}: expected a data: URI with the picture, found {str(value)[:80]!r}")
    if not value.startswith("data:"):
        raise InvalidParameterError(
            f"data.{key}: {value[:80]!r} is a link, and this service fetches nothing. Send the picture as a data: "
            "URI (data:image/jpeg;base64,...), or import what POST /detect?format=labelstudio answers"
        )
    return value


def decode_picture_uri(uri: str) -> bytes:
    """The bytes in a `data:` URI, not yet looked at.

    Raises:
        UnsupportedTypeError: not said to be an image, or not in base64.
        UndecodableImageError: broken base64.
    """
    head, _, body = uri.partition(",")
    if not (head.startswith("data:image/") and head.endswith(";base64")):
        raise UnsupportedTypeError(f"the data: URI begins with {head[:80]!r}; expected data:image/...;base64")
    try:
        return b64decode(body, validate=True)
    except (binascii.Error, ValueError) as error:
        raise UndecodableImageError(f"the data: URI is not base64: {error}") from error
