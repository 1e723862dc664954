"""OpenAI-style model APIs (see `model_api`), also of other makers, and as Azure serves them."""

from __future__ import annotations

from ..model_api import ModelApi

OPENAI = ModelApi(
    inference=frozenset(
        (
            "audio/speech",
            "chat/completions",
            "completions",
            "embeddings",
            "images/generations",
            "responses",
            "responses/compact",
        )
    ),
    free=frozenset(("moderations", "responses/input_tokens")),
)
