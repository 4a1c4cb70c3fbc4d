"""Class names as people type them."""

from service.errors import InvalidParameterError
from service.hints import nearest
from service.manifest import Manifest


def find_classes(manifest: Manifest, wanted: list[str] | None) -> set[int] | None:
    """Class ids of names, given one by one or separated by commas; None where no names are given, for all classes.

    Raises:
        InvalidParameterError: see `find_class`.
    """
    if wanted is None:
        return None
    return {find_class(manifest, name.strip(), "classes") for item in wanted for name in item.split(",")}


def find_class(manifest: Manifest, name: str, parameter: str) -> int:
    """Class id of a name.

    Raises:
        InvalidParameterError: not a class of the model; the message names the nearest one.
    """
    if name in manifest.classes:
        return manifest.classes.index(name)
    hint = nearest(name, manifest.classes)
    raise InvalidParameterError(f"{parameter}: {name[:80]!r} is not a class of {manifest.name}; {hint}")
