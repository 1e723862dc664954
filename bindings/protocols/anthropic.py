"""Anthropic-style model APIs (see `model_api`)."""

from __future__ import annotations

from ..model_api import ModelApi

ANTHROPIC = ModelApi(
    inference=frozenset(("complete", "messages")),
    free=frozenset(("messages/count_tokens",)),
)
