"""Retention: what is erased is gone from the files, and everything that remains can still be verified."""

from __future__ import annotations

import io
import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lictor.cli.log_view import report_table
from lictor.evidence import bet as bets
from lictor.evidence import sqlite_store
from lictor.evidence.disclosure import disclose
from lictor.evidence.entry import ActionDraft
from lictor.evidence.export import export_lines
from lictor.evidence.ledger import Ledger
from lictor.evidence.proof_files import prove_consistency, prove_inclusion
from lictor.evidence.recorder import Recorder
from lictor.evidence.retention import BY_HAND, DAY, Retention
from lictor.evidence.salted import disclosure
from lictor.evidence.sqlite_store import SqliteReader
from lictor.evidence.tiles import Tile, read_tile
from lictor.formats import jws
from lictor.formats.canonical import canonical
from lictor.formats.errors import UsageError
from lictor.verifier.bets import find_tokens
from lictor.verifier.disclosure import check_disclosure
from lictor.verifier.log import verify_lines, verify_log
from lictor.verifier.proof import check_proof

ALPHA, MONITOR = "spiffe://example.test/agent/alpha", "spiffe://example.test/monitor/one"
START = Callable[[], tuple[Ledger, Recorder]]
Log = Any


def old_and_new(path: Path) -> Iterator[tuple[int, bytes]]:
    with closing(SqliteReader(path)) as reader:
        yield from list(reader.entries())


def time_of(path: Path, seq: int) -> float:
    with closing(SqliteReader(path)) as reader:
        return float(json.loads(next(reader.entries(seq, seq + 1))[1])["timestamp"])


def holding(path: Path, needle: bytes) -> list[str]:
    """The files of the ledger that hold these octets."""
    return [f.name for f in path.parent.glob(f"{path.name}*") if f.is_file() and needle in f.read_bytes()]


def retention(ledger: Ledger, recorder: Recorder) -> Retention:
    return Retention(ledger, ledger._store, MONITOR, recorder.needed_from)


def lines_of(path: Path) -> list[bytes]:
    with closing(SqliteReader(path)) as reader:
        return list(export_lines(reader))


def tells(data: bytes) -> list[bytes]:
    """What only one entry has, its seq and its time, of all whose octets are here."""
    return re.findall(rb'"seq":\d+,"timestamp":[\d.]+', data)


async def test_what_is_erased_is_in_no_file_of_the_ledger_any_more(log: Log, running: START) -> None:
    ledger, recorder = running()
    big = "x" * 20_000  # an entry of several pages
    text = disclosure("/arguments/secret", "never to be seen again " * 40)
    draft = ActionDraft(ALPHA, "http_request", "https://a.test/", {"method": "GET", "big": big}, "allow", "allowed", [])
    kept = [await recorder.record_action(replace(draft, disclosures=[text], reason=f"r{n}x")) for n in range(3)]
    await recorder.close()
    entries = dict(old_and_new(log.ledger))
    end = kept[-1].seq + 1
    tells = [entries[seq] for seq in range(end)] + [text.encode()]
    assert all(holding(log.ledger, data[:200]) for data in tells)

    for _ in range(3):
        await recorder.record_action(draft)
    last = kept[-1].timestamp
    await recorder.close()
    done = await retention(ledger, recorder).erase(last + 1e-6, BY_HAND)
    assert (done.end, done.erased_now, done.scrubbed) == (end, end, True)
    for data in tells:
        assert holding(log.ledger, data[:200]) == []
        assert holding(log.ledger, data[-200:]) == []
    assert holding(log.ledger, big.encode()[:3000]) == [log.ledger.name]  # the entry that stays
    await ledger.close()
    assert all(holding(log.ledger, data[:200]) == [] for data in tells)


async def test_erasing_again_and_again_leaves_no_copy(log: Log, running: START) -> None:
    """Small steps over many pages: no page that was moved or freed keeps what was in it."""
    ledger, recorder = running()
    draft = ActionDraft(ALPHA, "http_request", "https://a.test/", {"method": "GET"}, "allow", "allowed", [])
    for number in range(400):
        text = disclosure("/a", f"value {number} " * (number % 20))
        await recorder.record_action(
            replace(draft, reason=f"reason-{number}-{'y' * (number * 7 % 1500)}", disclosures=[text])
        )
    await recorder.close()
    entries = dict(old_and_new(log.ledger))
    keeping = retention(ledger, recorder)
    for end in (20, 21, 77, 150, 151, 300, len(entries) - 1):
        cut = time_of(log.ledger, end)
        assert (await keeping.erase(cut, BY_HAND)).scrubbed
        whole = b"".join(f.read_bytes() for f in log.ledger.parent.glob(f"{log.ledger.name}*") if f.is_file())
        found = {*tells(whole)}
        for seq in range(end):
            assert found.isdisjoint(tells(entries[seq])), (end, seq)
        assert found.issuperset(tells(entries[len(entries) - 1]))
    await ledger.close()


async def test_everything_else_still_verifies(log: Log, running: START) -> None:
    before = verify_log(log.ledger, log.ca)
    with closing(SqliteReader(log.ledger)) as reader:
        proof = prove_inclusion(reader, 40, before.entries).text()
        rows = list(reader.bets())
    ledger, recorder = running()
    cut, size = time_of(log.ledger, 30), ledger.size
    await retention(ledger, recorder).erase(cut, "evidence.retention_days = 7")
    await ledger.close()

    report = verify_log(log.ledger, log.ca)
    assert (report.verdict, report.problem) == ("intact", None)
    assert (report.erased, report.entries) == (30, size + 1)
    assert [(one.rule, one.end, one.seq) for one in report.erased_under] == [("evidence.retention_days = 7", 30, size)]
    straddling = [row for row in rows if row.count and row.first_seq < 30]
    assert report.bets_erased == len(straddling) > 0
    assert report.bets + report.bets_erased == before.bets
    assert check_proof(proof, log.ca).index == 40
    with closing(SqliteReader(log.ledger)) as reader:
        assert check_proof(prove_inclusion(reader, 31).text(), log.ca).index == 31
        assert check_proof(prove_consistency(reader, rows[0].first_seq + rows[0].count).text(), log.ca)
        assert check_disclosure(disclose(reader, 31).text(), log.ca).entry["seq"] == 31
        assert read_tile(reader, Tile(0, 0, report.entries)) is not None
        assert read_tile(reader, Tile(None, 0, report.entries)) is None
        with pytest.raises(UsageError, match="entry 29 was erased"):
            prove_inclusion(reader, 29)


async def test_an_old_bet_still_verifies(log: Log, running: START, evidence_signer: Any) -> None:
    with closing(SqliteReader(log.ledger)) as reader:
        first = next(iter(reader.bets()))
    ledger, recorder = running()
    await retention(ledger, recorder).erase(time_of(log.ledger, first.first_seq + first.count), BY_HAND)
    await ledger.close()
    assert first.token in find_tokens(str(log.ledger))
    found = bets.verify(first.token, lambda *_: evidence_signer.public_key())
    assert found.jti == first.jti


async def test_a_log_is_taken_up_again_after_an_erasure(log: Log, running: START) -> None:
    ledger, recorder = running()
    await retention(ledger, recorder).erase(time_of(log.ledger, 50), BY_HAND)
    await ledger.close()
    ledger, recorder = running()
    await log.story(recorder)
    await ledger.close()
    report = verify_log(log.ledger, log.ca)
    assert (report.verdict, report.problem, report.erased) == ("intact", None, 50)


async def test_entries_of_an_open_window_stay(log: Log, running: START) -> None:
    """The fixture's log ends with open windows; a BET over them must still be possible."""
    ledger, recorder = running()
    size, needed = ledger.size, recorder.needed_from()
    assert needed < size
    done = await retention(ledger, recorder).erase(ledger.now(), BY_HAND)
    assert done.end == needed
    await recorder.close()
    await ledger.close()
    report = verify_log(log.ledger, log.ca)
    assert (report.verdict, report.problem, report.erased) == ("intact", None, needed)


async def test_nothing_to_erase_is_no_entry(log: Log, running: START) -> None:
    ledger, recorder = running()
    keeping, size = retention(ledger, recorder), ledger.size
    assert (await keeping.erase(1.0, BY_HAND)).erased_now == 0
    await keeping.daily(None)
    await keeping.daily(1.0)
    assert ledger.size == size
    with pytest.raises(UsageError, match="is to come"):
        await keeping.erase(ledger.now() + 60, BY_HAND)
    await ledger.close()


async def test_once_a_day_what_is_old_goes(log: Log, running: START, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, recorder = running()
    await recorder.close()
    keeping, size, now = retention(ledger, recorder), ledger.size, ledger.now()
    monkeypatch.setattr(ledger, "now", lambda: now + 31 * DAY)
    await keeping.daily(30)
    assert ledger.size == size + 1
    await recorder.record_action(ActionDraft(ALPHA, "http_request", "https://a.test/", {}, "allow", "allowed", []))
    await keeping.daily(30)
    assert ledger.size == size + 2
    await recorder.close()
    monkeypatch.setattr(ledger, "now", lambda: now + 90 * DAY)
    await keeping.daily(30)
    await ledger.close()
    with closing(SqliteReader(log.ledger)) as reader:
        assert reader.erased() == size + 2
        entries = [json.loads(data) for _, data in reader.entries()]
    assert [entry["action_type"] for entry in entries] == ["log_retention"]
    assert entries[0]["action_parameters"]["rule"] == "evidence.retention_days = 30"


async def test_an_announced_erasure_is_finished_after_a_crash(
    log: Log, running: START, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, recorder = running()

    async def killed(end: int) -> bool:
        raise ConnectionAbortedError

    monkeypatch.setattr(ledger, "erase", killed)
    with pytest.raises(ConnectionAbortedError):
        await retention(ledger, recorder).erase(time_of(log.ledger, 20), BY_HAND)
    await ledger.close()
    report = verify_log(log.ledger, log.ca)
    assert (report.verdict, report.erased) == ("intact", 0)
    ledger, recorder = running()
    await retention(ledger, recorder).resume()
    await ledger.close()
    report = verify_log(log.ledger, log.ca)
    assert (report.verdict, report.erased) == ("intact", 20)


async def test_a_reader_of_older_times_only_delays_the_scrubbing(log: Log, running: START) -> None:
    ledger, recorder = running()
    old = dict(old_and_new(log.ledger))[5]
    keeping, cut = retention(ledger, recorder), time_of(log.ledger, 20)
    with closing(SqliteReader(log.ledger)) as reader:
        with reader.snapshot():
            assert reader.erased() == 0
            done = await keeping.erase(cut, BY_HAND)
            assert (done.end, done.scrubbed) == (20, False)
            assert next(reader.entries(5))[1] == old
        await keeping.daily(None)
        assert [seq for seq, _ in reader.entries(0, 21)] == [20]
    assert holding(log.ledger, old) == []
    await ledger.close()


@pytest.fixture
async def erased(log: Log, running: START) -> list[bytes]:
    """The lines of an evidence file of which 30 entries are erased."""
    ledger, recorder = running()
    await retention(ledger, recorder).erase(time_of(log.ledger, 30), BY_HAND)
    await ledger.close()
    lines = lines_of(log.ledger)
    assert sum(line.startswith(b'{"erased"') for line in lines) == 30
    return lines


def _index(lines: list[bytes], start: bytes) -> int:
    return next(i for i, line in enumerate(lines) if line.startswith(start))


def test_an_erased_part_is_written_as_hashes(log: Log, erased: list[bytes]) -> None:
    report = verify_lines(erased, log.ca)
    assert (report.verdict, report.erased) == ("intact", 30)


def test_whoever_erases_in_the_file_only_is_found_out(log: Log, erased: list[bytes]) -> None:
    """One more entry replaced by its leaf hash: no announcement covers it."""
    at = _index(erased, b'{"entry"')
    leaf = json.loads(erased[at])["leaf"]
    lines = [*erased[:at], b'{"erased":{"leaf":"%s","seq":30}}\n' % leaf.encode(), *erased[at + 1 :]]
    report = verify_lines(lines, log.ca)
    assert (report.verdict, report.erased) == ("gap", 31)
    assert "entries are erased and no entry announces that" in str(report.problem)


def test_without_an_announcement_erased_entries_are_a_gap(log: Log, lines: list[bytes]) -> None:
    at = _index(lines, b'{"entry"')
    leaf = json.loads(lines[at])["leaf"]
    changed = [*lines[:at], b'{"erased":{"leaf":"%s","seq":0}}\n' % leaf.encode(), *lines[at + 1 :]]
    report = verify_lines(changed, log.ca)
    assert report.verdict == "gap"
    assert report.exit_code == 3


def test_a_hole_in_the_middle_is_no_retention(log: Log, erased: list[bytes]) -> None:
    at = _index(erased, b'{"entry"') + 1
    leaf = json.loads(erased[at])["leaf"]
    lines = [*erased[:at], b'{"erased":{"leaf":"%s","seq":31}}\n' % leaf.encode(), *erased[at + 1 :]]
    report = verify_lines(lines, log.ca)
    assert report.verdict == "bad"
    assert "a line of 'erased' stands after one of 'entry'" in str(report.problem)


@pytest.mark.parametrize("what", ["leaf", "seq", "missing", "twice"])
def test_an_altered_erased_part_is_bad(log: Log, erased: list[bytes], what: str) -> None:
    at = _index(erased, b'{"erased"') + 7
    line = json.loads(erased[at])["erased"]
    if what == "leaf":
        erased[at] = erased[at].replace(line["leaf"].encode(), json.loads(erased[at - 1])["erased"]["leaf"].encode())
    elif what == "seq":
        erased[at] = erased[at].replace(b'"seq":7', b'"seq":8')
    elif what == "missing":
        del erased[at]
    else:
        erased.insert(at, erased[at])
    report = verify_lines(erased, log.ca)
    assert report.verdict == "bad"


def test_bytes_changed_in_what_remains_are_bad(log: Log, erased: list[bytes]) -> None:
    at = _index(erased, b'{"entry"') + 3
    erased[at] = erased[at].replace(b"https://", b"https:/!", 1)
    assert verify_lines(erased, log.ca).verdict == "bad"


async def test_a_store_whose_erased_leaf_was_changed_is_not_opened(log: Log, running: START) -> None:
    ledger, recorder = running()
    await retention(ledger, recorder).erase(time_of(log.ledger, 30), BY_HAND)
    await ledger.close()
    with closing(sqlite3.connect(log.ledger)) as db:
        db.execute("UPDATE entries SET leaf = zeroblob(32) WHERE seq = 5")
        db.commit()
    with pytest.raises(Exception, match="does not agree with its last checkpoint"):
        running()


async def test_the_room_of_what_was_erased_is_used_again(
    log: Log, running: START, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_store, "ERASED_NEAR", 200)
    ledger, recorder = running()
    keeping = retention(ledger, recorder)
    fields = {"agent_id": "spiffe://example.test/agent/a", "padding": "z" * 1500}
    sizes = []
    for _ in range(6):
        for _ in range(1500):
            ledger.add(fields)
        await ledger.commit()
        entries = dict(old_and_new(log.ledger))
        await recorder.close()
        end = ledger.size - 300
        assert (await keeping.erase(time_of(log.ledger, end), BY_HAND)).scrubbed
        whole = log.ledger.read_bytes()
        found = {*tells(whole)}
        assert all((tells(data)[0] in found) == (seq >= end) for seq, data in entries.items())
        sizes.append(len(whole))
    await ledger.close()
    assert sizes[-1] < sizes[0] * 1.6
    assert verify_log(log.ledger, log.ca).verdict == "intact"


def test_a_bet_cannot_hide_behind_an_erasure(log: Log, erased: list[bytes], evidence_signer: Any) -> None:
    """It says that it begins among the erased entries, but its window begins long after them."""
    at = max(i for i, line in enumerate(erased) if line.startswith(b'{"bet"'))
    token = json.loads(erased[at])["bet"]
    claims = jws.parse_compact(token, typ=frozenset({bets.TYP})).claims()
    claims["ext"]["first_seq"], claims["ext"]["count"] = 3, claims["ext"]["count"] + 1
    claims["bhv_evidence"] = bets.EMPTY_EVIDENCE
    erased[at] = canonical({"bet": bets.issue(claims, evidence_signer)}) + b"\n"
    report = verify_lines(erased, log.ca)
    assert report.verdict == "bad"
    assert "count of BET" in str(report.problem)


def test_people_are_told_what_was_erased(log: Log, erased: list[bytes]) -> None:
    console = Console(record=True, width=400, file=io.StringIO())
    console.print(report_table(verify_lines(erased, log.ca)))
    text = console.export_text()
    assert "entries 0 to 29, of which the leaf hashes are left: by hand (up to entry 29: announced by entry 96" in text
    assert "BETs over them are signed, but cannot be computed again" in text
