"""What model APIs have in common: each model that a request names is an action on `<urn>#models/<name>`.

Naming is not asking only: fallbacks, tools and moderation may name further models, and the provider then uses those.
Listing models is an action on `<urn>`. Everything else, and an inference that names no model (the provider decides),
is one on `<urn>#<path>`, so that an allowlist of models lets nothing else pass: no files, no batches, no fine-tuning.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from .bodies import check_spelling, read_object
from .facts import Classified, RequestFacts, Unclassifiable
from .jsonrpc import MAX_BATCH, quoted
from .model import ActionType
from .target import Kind, Target

_BASE = re.compile(
    r"(?:/[^/]+)*?/(?:v[0-9]+(?:(?:alpha|beta)[0-9]*)?(?:/openai)?|openai/deployments/(?P<model>[^/%]+))/(?P<rest>.+)"
)
_NAMING = ("fallbacks", "models", "moderation", "tools")
_DESCRIBING = frozenset(("custom", "function", "input_schema", "parameters"))
"""Members of a tool that describe what the agent itself does when the model asks for it."""
_DOING = ("background", "container", "mcp_servers", "prompt", "stream", "stream_options", "web_search_options")
_MEMBERS = frozenset(("model", *_NAMING, *_DOING))


class ModelApi:
    """`inference`: the operations whose JSON body names a model; `free`: those of them that use no tokens."""

    kinds: tuple[Kind, ...] = ("model",)
    inside: tuple[str, ...] = ("models/", "/")

    def __init__(self, inference: frozenset[str], free: frozenset[str]) -> None:
        self.inference = inference | free
        self.free = free

    def needs_body(self, method: str) -> bool:
        return method == "POST"

    def classify(self, target: Target, facts: RequestFacts) -> tuple[Classified, ...]:
        operation, deployed = _operation(facts.path)
        if facts.method in ("GET", "HEAD") and (operation == "models" or operation.startswith("models/")):
            return (_action(target, "", facts),)
        if facts.method != "POST" or operation not in self.inference:
            return (_action(target, f"#{facts.path}", facts),)
        body = read_object(facts)
        asked, others = _models(body, deployed)
        about = {"operation": operation}
        if asked:
            first = _action(target, _fragment(asked), facts, {**about, "model": asked}, body)
        else:
            first = _action(target, f"#{facts.path}", facts, about, body)
        more = (_action(target, _fragment(name), facts, {**about, "model": name}, body) for name in others)
        return (first, *more)


def _action(
    target: Target,
    fragment: str,
    facts: RequestFacts,
    about: dict[str, str] | None = None,
    body: dict[str, Any] | None = None,
) -> Classified:
    return Classified(
        ActionType.MODEL_INFERENCE,
        target.urn + fragment,
        {"method": facts.method, **(about or {})},
        catalog_target=target,
        content=None if body is None else {"body": body},
    )


def _fragment(model: str) -> str:
    return "#models/" + quoted(model, safe="/:@")


def _operation(path: str) -> tuple[str, str]:
    """What is asked for, without the version or the deployment that stands before it; the deployment's name or ""."""
    found = _BASE.fullmatch(path)
    if found is None:
        return path[1:], ""
    return found["rest"], unquote(found["model"] or "")


def _models(body: dict[str, Any], deployed: str) -> tuple[str, list[str]]:
    """The model that a request is to ("": it does not say), and those that it names besides. Raises Unclassifiable."""
    check_spelling(body, _MEMBERS)
    asked = body.get("model")
    if asked is not None and not isinstance(asked, str):
        raise Unclassifiable("ambiguous_model", "expected a string as model")
    if deployed and asked not in (None, deployed):
        raise Unclassifiable("ambiguous_model", f"the path names the deployment {deployed!r}, the body another model")
    first = deployed or asked or ""
    named = dict.fromkeys(name for member in _NAMING for name in _named(body.get(member)))
    named.pop(first, None)
    if len(named) >= MAX_BATCH:
        raise Unclassifiable("bad_batch", f"a request names {len(named)} models, expected less than {MAX_BATCH}")
    return first, list(named)


def _named(value: Any, names: bool = True) -> Iterator[str]:
    """What a member that may name models names: strings in its place and under `model`, which `names` says it is."""
    if isinstance(value, str) and names:
        yield value
    elif isinstance(value, list):
        for one in value:
            yield from _named(one, names)
    elif isinstance(value, dict):
        for name, one in value.items():
            if name not in _DESCRIBING:
                yield from _named(one, name.casefold() in ("model", "models"))
