"""Class names as people type them."""

from difflib import get_close_matches

from service.errors import InvalidParameterError
from service.manifest import Manifest


def find_class(manifest: Manifest, name: str, parameter: str) -> int:
    """Class id of a name.

    Raises:
        InvalidParameterError: not a class of the model; the message names the nearest one.
    """
    if name in manifest.classes:
        return manifest.classes.index(name)
    near = get_close_matches(name, manifest.classes, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"the classes are {', '.join(manifest.classes)}"
    raise InvalidParameterError(f"{parameter}: {name[:80]!r} is not a class of {manifest.name}; {hint}")
