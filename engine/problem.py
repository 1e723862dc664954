"""What the engine found wrong with a request before any addon saw it, kept with mitmproxy's flow."""

from __future__ import annotations

from dataclasses import dataclass

from mitmproxy import http

_PROBLEM = "lictor.problem"


@dataclass(frozen=True, slots=True)
class Problem:
    """Why what came in is no request that could be judged. `reason` is the entry's."""

    reason: str
    text: str


def set_problem(flow: http.HTTPFlow, problem: Problem) -> None:
    flow.metadata[_PROBLEM] = problem


def problem_of(flow: http.HTTPFlow) -> Problem | None:
    """What the engine found wrong with this request, or None."""
    found = flow.metadata.get(_PROBLEM)
    return found if isinstance(found, Problem) else None
