"""Monitors of which the operator says that they watch the same, and what their BETs say of one agent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lictor.certs.domain import TrustDomain
from lictor.evidence.bet import Bet
from lictor.formats.errors import UsageError
from lictor.verifier.service.config import load
from lictor.verifier.service.cross_check import Watched
from lictor.verifier.service.register import Register, Span

NEAR, FAR, AGENT = "spiffe://x/monitor/near", "spiffe://x/monitor/far", "spiffe://x/agent/a"
NOW = 10_000.0
WATCHED = (Watched("spiffe://x/agent/*", (NEAR, FAR)),)


def bet(issuer: str, end: float, start: float | None = None, count: int = 2, **changes: Any) -> Bet:
    more = {"checkpoint_size": int(end), "checkpoint_root": f"{issuer}-{end}", "binding_digest": "d", "count": count}
    given = {
        "issuer": issuer,
        "subject": AGENT,
        "audience": (),
        "jti": f"{issuer}-{end}",
        "iat": int(end),
        "exp": int(end) + 3600,
        "wid": "w",
        "parents": ("n",),
        "policy": "urn:p",
        "result": "pass",
        "evidence": "e",
        "start": end - 10 if start is None else start,
        "end": end,
        "details": (),
        "ext": more | changes.pop("ext", {}),
        "token": f"head.{issuer}-{end}.signature",
    }
    return Bet(**(given | changes))


DEMANDED = {"evaluation_mode": "on_demand"}


@pytest.mark.parametrize(
    ("bets", "blamed"),
    [
        pytest.param([bet(NEAR, 9000), bet(FAR, 9000)], [], id="both tell of it"),
        pytest.param([], [], id="neither tells of anything"),
        pytest.param([bet(NEAR, 9000)], [FAR], id="the far one tells of nothing"),
        pytest.param([bet(FAR, 9000)], [NEAR], id="the near one tells of nothing"),
        pytest.param([bet(NEAR, 9000), bet(FAR, 9000, count=0)], [FAR], id="the far one says that there was nothing"),
        pytest.param([bet(NEAR, 9000, count=0)], [], id="an empty window needs no other"),
        pytest.param([bet(NEAR, 9000), bet(FAR, 9040)], [], id="30 s apart, as clocks may be"),
        pytest.param([bet(NEAR, 9000), bet(FAR, 9041)], [NEAR, FAR], id="further apart than clocks may be"),
        pytest.param([bet(NEAR, 9000), bet(FAR, 9500, 8000)], [], id="a long window around a short one"),
        pytest.param([bet(NEAR, 9000, result="partial")], [], id="perhaps all that was in it was refused"),
        pytest.param([bet(NEAR, 9000, result="fail")], [], id="a failed one"),
        pytest.param([bet(NEAR, 9800)], [], id="evidence may still come"),
        pytest.param([bet(NEAR, 4000)], [], id="before the period"),
        pytest.param([bet(NEAR, 9000, ext=DEMANDED)], [], id="a window that somebody chose"),
        pytest.param([bet(NEAR, 9000), bet(FAR, 9000, subject="spiffe://x/agent/b")], [FAR], id="another agent's"),
        pytest.param([bet("spiffe://x/monitor/third", 9000)], [], id="a monitor of which that is not said"),
    ],
)
def test_what_they_must_tell_alike(bets: list[Bet], blamed: list[str], tmp_path: Path) -> None:
    register = Register(tmp_path / "r.db")
    for one in bets:
        register.add([one], NOW)
    found = register.disagreements(AGENT, WATCHED, Span.last(5000, NOW), NOW - 300)
    assert sorted(one.text.split(" tells")[0] for one in found) == sorted(blamed)
    assert {(one.what, one.status) for one in found} <= {("monitors_disagree", "contraindicated")}
    assert register.disagreements(AGENT, (), Span.last(5000, NOW), NOW - 300) == []
    other = (Watched("spiffe://x/agent/b", (NEAR, FAR)),)
    assert register.disagreements(AGENT, other, Span.last(5000, NOW), NOW - 300) == []
    register.close()


@pytest.mark.parametrize(
    "table",
    [
        'agent = "spiffe://x/agent/a"\nmonitors = ["spiffe://x/monitor/a"]',
        'agent = "spiffe://x/agent/a"\nmonitors = ["spiffe://x/monitor/a", "spiffe://x/monitor/a"]',
        'agent = "a"\nmonitors = ["spiffe://x/monitor/a", "spiffe://x/monitor/b"]',
        'agent = "spiffe://x/*/a"\nmonitors = ["spiffe://x/monitor/a", "spiffe://x/monitor/b"]',
        'monitors = ["spiffe://x/monitor/a", "spiffe://x/monitor/b"]',
    ],
)
def test_bad_settings(table: str, tmp_path: Path) -> None:
    domain = TrustDomain.create(tmp_path / "trust", "x")
    domain.add_verifier("v")
    path = tmp_path / "verifier.toml"
    path.write_text(
        f'name = "v"\nlisten = "127.0.0.1:1"\ntrust = "{domain.path}"\nregister = "r.db"\n[[watched]]\n{table}\n'
    )
    with pytest.raises(UsageError):
        load(path)
