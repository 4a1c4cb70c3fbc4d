"""How one record is written, to a file and to a terminal."""

import json
import logging
import warnings
from collections.abc import Iterator
from io import StringIO
from typing import Any

import pytest
from structlog.contextvars import bound_contextvars

from service.logs import configure_logging

HOSTILE = "a\nb\x1b[31m\u2028c"


class Terminal(StringIO):
    """A stream that people read."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _undo() -> Iterator[None]:
    """Put the logging of the test run back."""
    loggers = [logging.getLogger(name) for name in (None, "heatquery", "uvicorn")]
    before = [(logger, list(logger.handlers), logger.level) for logger in loggers]
    yield
    logging.captureWarnings(False)
    for logger, handlers, level in before:
        logger.handlers = handlers
        logger.setLevel(level)


def read(stream: StringIO) -> dict[str, Any]:
    """The one line on a stream."""
    (line,) = stream.getvalue().splitlines()
    return json.loads(line)


def test_fields_of_a_record_become_fields_of_the_line() -> None:
    configure_logging("info", stream := StringIO())
    logging.getLogger("heatquery").info("stored", extra={"entries": 3})
    assert read(stream)["entries"] == 3


def test_the_request_id_is_on_every_line_of_a_request() -> None:
    configure_logging("info", stream := StringIO())
    with bound_contextvars(request_id="r-1"):
        logging.getLogger("heatquery.anything").warning("slow")
    assert read(stream)["request_id"] == "r-1"


def test_a_traceback_is_one_line() -> None:
    configure_logging("info", stream := StringIO())
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        logging.getLogger("heatquery").exception("failed")
    assert "ValueError: a\nb" in read(stream)["exception"]


def test_a_message_cannot_break_its_line() -> None:
    configure_logging("info", stream := StringIO())
    logging.getLogger("heatquery").info("got %s", HOSTILE)
    assert read(stream)["event"] == f"got {HOSTILE}"


def test_a_message_cannot_break_its_line_on_a_terminal() -> None:
    configure_logging("info", stream := Terminal())
    logging.getLogger("heatquery").info("got %s", HOSTILE, extra={"path": HOSTILE})
    (line,) = stream.getvalue().splitlines()
    assert line.count("a\\nb\\x1b[31m\\u2028c") == 2


def test_a_terminal_gets_no_json() -> None:
    configure_logging("info", stream := Terminal())
    logging.getLogger("heatquery").info("stored")
    assert "stored" in stream.getvalue()
    assert "{" not in stream.getvalue()


def test_the_level_is_for_our_own_loggers() -> None:
    configure_logging("debug", stream := StringIO())
    logging.getLogger("PIL").debug("chunk IHDR")
    logging.getLogger("heatquery").debug("ours")
    assert read(stream)["event"] == "ours"


def test_a_lesser_level_is_left_out() -> None:
    configure_logging("warning", stream := StringIO())
    logging.getLogger("heatquery.access").info("request")
    assert not stream.getvalue()


def test_a_warning_of_python_is_a_line() -> None:
    configure_logging("info", stream := StringIO())
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", stacklevel=1)
    assert "UserWarning: old" in read(stream)["event"]
