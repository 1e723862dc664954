"""All changes to mitmproxy's own code, one function each, with the reason."""

from __future__ import annotations

from mitmproxy import http

from .hook_dispatch import Dispatcher


def apply() -> None:
    """Apply all patches; again is harmless."""
    http.MessageData.__post_init__ = lambda self: None  # type: ignore[method-assign]


def bind(dispatcher: Dispatcher) -> None:
    """x"""
