"""The second half of the demo: what the monitors wrote, shown, and verified by one who trusts a single certificate."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..evidence.export import write_export
from ..evidence.sqlite_store import SqliteReader
from ..verifier.chain import read_chain, verify_chain
from ..verifier.log import verify_log
from ..verifier.reconciliation import Edge, reconcile
from .demo_pictures import Evidence, bet_table, dag_trees, log_table, read_evidence
from .demo_story import Story
from .demo_world import AGENT_B, AGENT_C, OTHER_DATA, TOOL, World
from .evidence_view import short


def tell_evidence(story: Story, world: World) -> None:
    """Export, show, tamper, verify."""
    with story.chapter("The action logs, exported as files that others can verify"):
        for name, path in world.files.items():
            _export(world.monitor(name) / "ledger.db", path)
        logs = {name: read_evidence(path) for name, path in world.files.items()}
        for name, evidence in logs.items():
            story.tell(f"log of monitor {name}:")
            story.show(log_table(evidence))
        _check_logs(story, logs)
    with story.chapter("Behavioral Evidence Tokens: the monitors' signed word on each window of their logs"):
        story.show(bet_table([bet for evidence in logs.values() for bet in evidence.bets]))
        _check_bets(story, logs)
    with story.chapter("Who did what for whom: the delegation DAG"):
        for tree in dag_trees(read_chain(world.files.values()), logs.values()):
            story.show(tree)
    shutil.copyfile(world.identity_ca, world.evidence / world.identity_ca.name)
    with story.chapter("One byte of a copy of monitor a's log is changed"):
        _tamper(story, world, world.files["a"])
    with story.chapter("All three logs as they are, verified offline with one public certificate"):
        _verify(story, world)


def _export(ledger: Path, path: Path) -> None:
    reader = SqliteReader(ledger)
    try:
        write_export(reader, path)
    finally:
        reader.close()


def _entry(evidence: Evidence, target: str) -> Mapping[str, Any]:
    """The first action on a target; an empty one if there is none, which then fails the checks."""
    return next((entry for entry in evidence.actions if entry["action_target"] == target), {})


def _check_logs(story: Story, logs: Mapping[str, Evidence]) -> None:
    a, c = logs["a"], logs["c"]
    denied = " ".join(entry["action_target"] for entry in a.actions if entry["decision"] == "deny")
    story.check("refused by monitor a", expected=f"{OTHER_DATA} {TOOL}#tools/delete_everything", found=denied)
    refused = [entry for entry in c.actions if entry["decision"] == "deny"]
    told = " ".join(f"{entry['action_type']} by {short(entry['agent_id'])}" for entry in refused)
    story.check("refused by monitor c", expected="delegation by monitor/a", found=told)
    begun = _entry(a, AGENT_B).get("wid", "an entry of the delegation")
    joined = _entry(c, f"{TOOL}#tools/count_words").get("wid")
    story.check("agent C's tool call belongs to the workflow that agent A began", expected=begun, found=joined)


def _check_bets(story: Story, logs: Mapping[str, Evidence]) -> None:
    a, b, c = logs.values()
    triggers = " ".join(bet.ext["trigger"] for bet in a.bets)
    expected = "violation violation delegation delegation shutdown"
    story.check("monitor a issued BETs on", expected=expected, found=triggers)
    for caller, callee, urn in (("a", "b", AGENT_B), ("b", "c", AGENT_C)):
        sent = next((bet.jti for bet in logs[caller].bets if bet.ext["trigger"] == "delegation"), "a BET")
        taken = [said["jti"] for said in _entry(logs[callee], urn).get("action_parameters", {}).get("evidence", ())]
        what = f"monitor {callee} verified the BET that came from monitor {caller}"
        story.check(what, expected=sent, found=" ".join(taken))
    results = {bet.result for bet in (*b.bets, *c.bets) if bet.subject.endswith(("/agent/b", "/agent/c"))}
    story.check("agents B and C kept to their policies, their BETs say", expected="pass", found=" ".join(results))
    reported = " ".join(short(bet.subject) for bet in c.bets if bet.ext["trigger"] == "violation")
    story.check("of the work that it refused, monitor c issued a BET about", expected="monitor/a", found=reported)


def _verify(story: Story, world: World) -> None:
    """The command itself: its output, and its exit code."""
    words = ["chain", "verify", *(path.name for path in world.files.values()), "--trust", world.identity_ca.name]
    story.tell(f"$ lictor {shlex.join(words)}")
    command = [sys.executable, "-m", "lictor", *words]
    done = subprocess.run(command, cwd=world.evidence, capture_output=True, text=True, timeout=60, check=False)
    for line in (done.stdout + done.stderr).splitlines():
        story.tell(line)
    story.check("exit code of lictor chain verify", expected=0, found=done.returncode)
    edges, _ = reconcile(world.files.values(), verify_chain(world.files.values(), world.identity_ca.read_bytes()))
    expected = "agent/a to agent/b agreed, agent/b to agent/c agreed, one of agent/a refused"
    story.check("the delegations by both ends' logs", expected=expected, found=", ".join(sorted(map(_said, edges))))


def _said(edge: Edge) -> str:
    between = f"{short(edge.caller)} to {short(edge.callee)}" if edge.callee else f"one of {short(edge.caller)}"
    return f"{between} {edge.state}"


def _tamper(story: Story, world: World, path: Path) -> None:
    copy = path.with_name("a-tampered.jsonl")
    data = path.read_bytes()
    copy.write_bytes(data.replace(b'"status":200', b'"status":201', 1))
    story.tell(f"in {copy.name} the status of the first outcome is 201, it was 200")
    report = verify_log(copy, world.identity_ca.read_bytes())
    altered = report.verdict == "bad" and report.problem is not None and "altered" in report.problem.what
    story.check(
        "the copy", expected="bad: an entry was altered", found=f"{report.verdict}: {report.problem}", ok=altered
    )
