"""The second half of the demo: what the monitors wrote, shown, and verified by one who trusts a single certificate."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..evidence.export import write_export
from ..evidence.sqlite_store import SqliteReader
from ..verifier.chain import read_chain, verify_chain
from ..verifier.log import verify_log
from .demo_pictures import Evidence, bet_table, dag_trees, log_table, read_evidence
from .demo_story import Story
from .demo_world import AGENT_B, OTHER_DATA, TOOL, World


def tell_evidence(story: Story, world: World) -> None:
    """Export, show, verify, tamper, verify again."""
    files = {name: world.evidence / f"{name}.jsonl" for name in ("a", "b")}
    with story.chapter("The action logs, exported as files that others can verify"):
        for name, path in files.items():
            _export(world.monitor(name) / "ledger.db", path)
        a, b = (read_evidence(path) for path in files.values())
        for name, evidence in (("a", a), ("b", b)):
            story.tell(f"log of monitor {name}:")
            story.show(log_table(evidence))
        _check_logs(story, a, b)
    with story.chapter("Behavioral Evidence Tokens: the monitors' signed word on each window of their logs"):
        story.show(bet_table((*a.bets, *b.bets)))
        _check_bets(story, a, b)
    with story.chapter("Who did what for whom: the delegation DAG"):
        for tree in dag_trees(read_chain(files.values()), (a, b)):
            story.show(tree)
    with story.chapter("Verification, offline, with one public certificate"):
        shutil.copyfile(world.identity_ca, world.evidence / world.identity_ca.name)
        _verify(story, world, files)
    with story.chapter("One byte of a copy of monitor a's log is changed"):
        _tamper(story, world, files["a"])


def _export(ledger: Path, path: Path) -> None:
    reader = SqliteReader(ledger)
    try:
        write_export(reader, path)
    finally:
        reader.close()


def _entry(evidence: Evidence, target: str) -> Mapping[str, Any]:
    """The first action on a target; an empty one if there is none, which then fails the checks."""
    return next((entry for entry in evidence.actions if entry["action_target"] == target), {})


def _check_logs(story: Story, a: Evidence, b: Evidence) -> None:
    denied = " ".join(entry["action_target"] for entry in a.actions if entry["decision"] == "deny")
    story.check("refused by monitor a", expected=f"{OTHER_DATA} {TOOL}#tools/delete_everything", found=denied)
    begun = _entry(a, AGENT_B).get("wid", "an entry of the delegation")
    joined = _entry(b, f"{TOOL}#tools/count_words").get("wid")
    story.check("agent B's tool call belongs to the workflow that agent A began", expected=begun, found=joined)


def _check_bets(story: Story, a: Evidence, b: Evidence) -> None:
    triggers = " ".join(bet.ext["trigger"] for bet in a.bets)
    story.check("monitor a issued BETs on", expected="violation violation delegation shutdown", found=triggers)
    sent = next((bet.jti for bet in a.bets if bet.ext["trigger"] == "delegation"), "a BET for the delegation")
    taken = [said["jti"] for said in _entry(b, AGENT_B).get("action_parameters", {}).get("evidence", ())]
    story.check("monitor b verified the BET that came with the delegation", expected=sent, found=" ".join(taken))
    results = " ".join({bet.result for bet in b.bets if bet.subject.endswith("/agent/b")})
    story.check("agent B kept to its policy, its BETs say", expected="pass", found=results)


def _verify(story: Story, world: World, files: dict[str, Path]) -> None:
    ca = world.identity_ca.read_bytes()
    for name, path in files.items():
        report = verify_log(path, ca)
        what = f"log of monitor {name}: {report.entries} entries, {report.bets} BETs"
        found = f"{report.verdict}: {report.problem}" if report.problem else report.verdict
        story.check(what, expected="intact", found=found)
    chain = verify_chain(files.values(), ca)
    what = f"both together: {len(chain.nodes)} nodes, {len(chain.bets)} BETs"
    story.check(what, expected="intact", found=" ".join((chain.verdict, *map(str, chain.problems))))


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
