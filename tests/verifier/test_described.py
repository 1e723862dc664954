"""A log in which the monitor describes itself: every BET names the description in force, or the log does not hold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import described
import orjson
import pytest

from lictor.evidence import description
from lictor.evidence.entry import DESCRIPTION, own_fields
from lictor.evidence.export import export_lines
from lictor.evidence.ledger import Ledger
from lictor.evidence.recorder import Recorder
from lictor.evidence.sqlite_store import SqliteReader
from lictor.formats.keys import KeySigner
from lictor.verifier.log import verify_lines, verify_log
from lictor.verifier.report import LogReport

MONITOR = "spiffe://example.test/monitor/one"
Start = Callable[[], tuple[Ledger, Recorder]]
Log = Any
Spoil = Callable[[Ledger, KeySigner], None]


def describe(ledger: Ledger, signer: KeySigner, **changes: Any) -> description.Description:
    said = description.claims_of(MONITOR, ledger, described.MEASURED, ["b1"], [])
    return description.enter(ledger, signer, ["MII="], said | changes)


async def grow(log: Log, running: Start, signer: KeySigner, *spoils: Spoil) -> LogReport:
    """A log that begins without, and is then described twice; between the second and the end stands a spoil."""
    ledger, recorder = running()
    describe(ledger, signer)
    await log.work(recorder, 3)
    describe(ledger, signer)
    for spoil in spoils:
        spoil(ledger, signer)
    await log.work(recorder, 3)
    await recorder.close()
    await ledger.close()
    return verify_log(log.ledger, log.ca)


async def test_it_holds(log: Log, running: Start, evidence_signer: KeySigner) -> None:
    before = verify_log(log.ledger, log.ca)
    assert (before.descriptions, before.described) == (0, None), "logs of before hold none"
    report = await grow(log, running, evidence_signer)
    assert (report.verdict, report.descriptions, report.problem) == ("intact", 2, None)
    assert report.described is not None
    assert (report.described.package, report.described.version) == ("a" * 64, "1.2.3")


def not_named(ledger: Ledger, signer: KeySigner) -> None:
    ledger.described = ""


def another_named(ledger: Ledger, signer: KeySigner) -> None:
    ledger.described = "x" * 43


def the_former_named(ledger: Ledger, signer: KeySigner) -> None:
    former = ledger.described
    describe(ledger, signer)
    ledger.described = former


def not_of_its_place(ledger: Ledger, signer: KeySigner) -> None:
    describe(ledger, signer, log_size=0)


def of_another(ledger: Ledger, signer: KeySigner) -> None:
    describe_other = described.claims("example.test/monitor/two", log_size=ledger.size)
    found = description.parse(describe_other, "")
    entry = {"description": describe_other, "digest": found.digest}
    ledger.add(own_fields(MONITOR, DESCRIPTION, entry))


def unreadable(ledger: Ledger, signer: KeySigner) -> None:
    ledger.add(own_fields(MONITOR, DESCRIPTION, {"description": {"swname": "lictor"}, "digest": "x"}))


def empty(ledger: Ledger, signer: KeySigner) -> None:
    ledger.add(own_fields(MONITOR, DESCRIPTION, {}))


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (not_named, "names another description than is in force"),
        (another_named, "names another description than is in force"),
        (the_former_named, "names another description than is in force"),
        (not_of_its_place, "a description of the monitor is not of this place"),
        (of_another, "a description of the monitor is not of this place"),
        (unreadable, "a description of the monitor cannot be read"),
        (empty, "an entry lacks what entries have"),
    ],
)
async def test_it_does_not(spoil: Spoil, text: str, log: Log, running: Start, evidence_signer: KeySigner) -> None:
    report = await grow(log, running, evidence_signer, spoil)
    assert (report.verdict, report.exit_code) == ("bad", 1)
    assert text in str(report.problem)


async def test_an_agent_is_no_monitor(log: Log, running: Start, evidence_signer: KeySigner) -> None:
    """An entry of that name about somebody else describes nothing."""

    def posing(ledger: Ledger, signer: KeySigner) -> None:
        ledger.add({**own_fields(MONITOR, DESCRIPTION, {}), "agent_id": "spiffe://example.test/agent/x"})

    report = await grow(log, running, evidence_signer, posing)
    assert (report.verdict, report.descriptions) == ("intact", 2)


async def test_what_was_erased_cannot_be_held_against_bets(
    log: Log, running: Start, evidence_signer: KeySigner, tmp_path: Path
) -> None:
    await grow(log, running, evidence_signer)
    reader = SqliteReader(log.ledger)
    lines = list(export_lines(reader))
    reader.close()
    entries = [n for n, line in enumerate(lines) if line.startswith(b'{"entry"')]
    first = next(n for n in entries if DESCRIPTION.encode() in lines[n])
    for n in [n for n in entries if n <= first]:
        found = orjson.loads(lines[n])
        gone = {"erased": {"leaf": found["leaf"], "seq": found["entry"]["seq"]}}
        lines[n] = orjson.dumps(gone, option=orjson.OPT_SORT_KEYS) + b"\n"
    report = verify_lines(lines, log.ca)
    assert (report.verdict, report.descriptions) == ("gap", 1), "nothing announces the erasure; nothing else is wrong"
    assert "no entry announces that" in str(report.problem)
