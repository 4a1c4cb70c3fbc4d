"""How large a request body may be, and how fast it must come: scenes have limits of their own."""

from typing import NamedTuple

from service.errors import BodyTooLargeError
from service.settings import Settings

SCENES_PATH = "/scenes"
_PROGRESS_BYTES = 1024**2


class BodyLimits(NamedTuple):
    """Limits of one request body.

    Attributes:
        setting: where `max_bytes` is set.
        seconds: for the whole body, or for each piece of it.
        piece_bytes: what must come in that time; None: all of it.
    """

    max_bytes: int
    setting: str
    seconds: float
    piece_bytes: int | None

    @classmethod
    def of(cls, settings: Settings, path: str) -> "BodyLimits":
        """What holds for a path. Gigabytes take their time, so a scene only has to keep coming."""
        if path == SCENES_PATH:
            seconds, piece = settings.body_seconds, _PROGRESS_BYTES
            return cls(settings.max_scene_bytes, "HEATQUERY_MAX_SCENE_BYTES", seconds, piece)
        return cls(settings.max_upload_bytes, "HEATQUERY_MAX_UPLOAD_BYTES", settings.body_seconds, None)

    def too_large(self) -> BodyTooLargeError:
        """One wording for every place where the limit is met."""
        return BodyTooLargeError(f"the request body is over {self.max_bytes:,} bytes ({self.setting})")
