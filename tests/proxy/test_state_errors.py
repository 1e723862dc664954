"""Whatever fails in criteria of any type that there is: it lets nothing out."""

from __future__ import annotations

from pathlib import Path

import pytest
from remembering import LENIENT, Monitor, bound, draft

from lictor.bindings.catalog import Catalog
from lictor.bindings.criteria import CRITERIA, compile_criteria
from lictor.bindings.criterion import Stateless
from lictor.bindings.policy import Policy
from lictor.evidence.entry import OutcomeDraft
from lictor.evidence.sqlite_store import SqliteReader
from lictor.proxy.state import Book


@pytest.fixture
def monitor(tmp_path: Path) -> Monitor:
    return Monitor(tmp_path)


@pytest.mark.parametrize("hook", ["took", "ended"])
@pytest.mark.parametrize("kind", sorted(CRITERIA))
async def test_what_cannot_be_remembered_closes_everything_until_it_is_read_from_the_log(
    monitor: Monitor, monkeypatch: pytest.MonkeyPatch, kind: str, hook: str
) -> None:
    """Every criterion that there is. What was judged before the error has gone out; never one more."""
    if isinstance(compile_criteria(LENIENT[kind]), Stateless):
        assert kind not in {"rate", "budget", "sequence"}
        return
    bindings = bound(LENIENT[kind], types=["delegation"] if kind == "delegation" else ["tool_call"])
    monitor.start(bindings)
    type_ = "delegation" if kind == "delegation" else "tool_call"
    first = await monitor.recorder.record_action(draft(type_=type_, audience=["spiffe://e.example/agent/b"]))
    assert first.decision == "allow"

    def broken(*_: object) -> None:
        raise RuntimeError("broken")

    with monkeypatch.context() as patched:
        memory = compile_criteria(LENIENT[kind]).begin()  # type: ignore[union-attr]
        patched.setattr(type(memory), hook, broken)
        if hook == "took":
            assert (await monitor.act(type_=type_))[0] == "allow"
        else:
            await monitor.recorder.record_outcome(OutcomeDraft(first.seq, {"status": 200}))
    assert await monitor.act(type_=type_) == ("deny", "monitor_error")
    assert await monitor.act(type_=type_) == ("deny", "monitor_error")
    (await monitor.state.change(bindings, monitor.ledger, lambda: SqliteReader(monitor.path)))()
    assert (await monitor.act(type_=type_))[0] == "allow"
    await monitor.ledger.close()


@pytest.mark.parametrize("kind", sorted(CRITERIA))
def test_criteria_that_cannot_be_compiled_are_not_in_force(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("broken")

    types = ["delegation"] if kind == "delegation" else ["tool_call"]
    bindings = bound(LENIENT[kind], types=types)
    monkeypatch.setattr(type(CRITERIA[kind]), "compile", broken)
    for take in (
        lambda: bound(LENIENT[kind], types=types),
        lambda: Policy(bindings, Catalog([])),
        lambda: Book(bindings),
    ):
        with pytest.raises(RuntimeError, match="broken"):
            take()
