"""Text from outside as it is shown to people: nothing in it can steer a terminal, or begin another line."""

from __future__ import annotations

import logging


def plain(value: object) -> str:
    """Text in which nothing can steer a terminal: what is not printable is written as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in str(value))


def log_to_stderr(form: str, level: int = logging.WARNING) -> None:
    """Have all messages go to standard error in this form, one line each but for tracebacks."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Plain(form))
    logging.basicConfig(level=level, handlers=[handler])


class _Plain(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:
        return plain(super().formatMessage(record))

    def formatException(self, ei: logging._SysExcInfoType) -> str:
        return "\n".join(map(plain, super().formatException(ei).split("\n")))
