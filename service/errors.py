"""What can go wrong. The code that raises these exceptions knows no HTTP; `problems` turns them into answers."""


class ServiceError(Exception):
    """Base of all errors with a place in `PROBLEMS`; the message is shown to the caller."""


class UndecodableImageError(ServiceError):
    """The bytes claim to be a picture but cannot be read as one."""


class MalformedRequestError(ServiceError):
    """The bytes on the connection are not HTTP."""


class MalformedBodyError(ServiceError):
    """The request body breaks its own format, for example a multipart body without a boundary."""


class UnauthorizedError(ServiceError):
    """No API key came, or a wrong one."""


class UnknownImageError(ServiceError):
    """No stored result has this image id: never seen, expired or pushed out."""


class UnknownModelError(ServiceError):
    """No loaded model has this name."""


class UnknownSceneError(ServiceError):
    """No scene has this id: never sent, deleted or expired; or it has nothing of the kind that is asked for."""


class SceneStateError(ServiceError):
    """The scene is not in a state in which this can be asked of it."""


class SlowHeadError(ServiceError):
    """The request line and headers did not arrive in time."""


class SlowBodyError(ServiceError):
    """The request body did not arrive in time."""


class BodyTooLargeError(ServiceError):
    """The request body is over the byte limit."""


class PictureTooLargeError(ServiceError):
    """The picture is over the pixel limit."""


class UnsupportedTypeError(ServiceError):
    """The body is not of an image type (or content coding) that the service takes."""


class InvalidParameterError(ServiceError):
    """A parameter is well formed but means nothing here, for example an unknown class."""


class HeadTooLargeError(ServiceError):
    """The request line and headers are over the byte limit."""


class TooManyConnectionsError(ServiceError):
    """As many connections as allowed are already open."""


class RateLimitError(ServiceError):
    """This caller has made as many calls as it may in this time."""


class QueueFullError(ServiceError):
    """As many calls as allowed are already waiting."""


class SceneQueueFullError(ServiceError):
    """As many scenes as allowed are already waiting or being received."""


class NotReadyError(ServiceError):
    """The model is still loading, or could not be loaded."""


class StoreUnavailableError(ServiceError):
    """The store of results cannot be asked now; the log says why, once."""


class StorageError(ServiceError):
    """The disk that scenes are kept on is full, read-only or broken."""


class OutOfMemoryError(ServiceError):
    """Memory ran out while this call was worked on; the next call may succeed."""


class DeadlineError(ServiceError):
    """The call took longer than the deadline."""


class EngineError(ServiceError):
    """The graphs failed on input they should have taken: a fault of ours."""
