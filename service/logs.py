"""One line of JSON per event on stderr, whoever logs it; in colour and for people where stderr is a terminal."""

import logging
import re
import sys
from typing import TextIO

import structlog
from opentelemetry import trace
from structlog.typing import EventDict, Processor, WrappedLogger

from service.settings import LogLevel

_OURS = ("heatquery", "uvicorn")
_FIRST = ("timestamp", "level", "event", "logger", "request_id", "trace_id")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def configure_logging(level: LogLevel, stream: TextIO = sys.stderr) -> None:
    """Send the records of every logger of this process, uvicorn's too, and Python's warnings, to one stream.

    Args:
        level: of the service's and uvicorn's own loggers; other libraries are heard from warnings on.
    """
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                structlog.contextvars.merge_contextvars,
                structlog.stdlib.add_logger_name,
                structlog.stdlib.add_log_level,
                structlog.stdlib.ExtraAdder(),
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                _add_trace_id,
                _order,
            ],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_renderers(stream.isatty())],
        )
    )
    logging.captureWarnings(True)
    number = logging.getLevelNamesMapping()[level.upper()]
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(max(number, logging.WARNING))
    for name in _OURS:
        logging.getLogger(name).setLevel(number)


def _renderers(terminal: bool) -> list[Processor]:
    if terminal:
        return [
            _escape_controls,
            structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback, sort_keys=False),
        ]
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]


def _add_trace_id(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = f"{context.trace_id:032x}"
    return event


def _order(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """What every line has comes first; uvicorn's second, coloured wording of a message goes."""
    event.pop("color_message", None)
    return {name: event[name] for name in _FIRST if name in event} | dict(event)


def _escape_controls(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """JSON escapes them itself; on a terminal a line break would forge a line, an escape code do worse."""
    return {name: _CONTROL.sub(_escaped, value) if isinstance(value, str) else value for name, value in event.items()}


def _escaped(match: re.Match[str]) -> str:
    return repr(match[0])[1:-1]
