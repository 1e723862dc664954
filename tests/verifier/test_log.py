"""A log is intact, a prefix, with a gap, or bad; every way to spoil it is found, and the place is named."""

from __future__ import annotations

import json
import sqlite3
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lictor.certs.domain import TrustDomain
from lictor.certs.evidence_keys import evidence_jwk
from lictor.evidence.checkpoint import CheckpointSigner
from lictor.evidence.export import export_lines
from lictor.evidence.ledger import Ledger
from lictor.evidence.merkle import leaf_hash, root
from lictor.evidence.sqlite_store import SqliteReader, SqliteStore
from lictor.formats import base64url
from lictor.formats.canonical import canonical
from lictor.formats.errors import UsageError
from lictor.formats.keys import KeySigner
from lictor.verifier.log import verify_lines, verify_log
from lictor.verifier.report import LogReport

ORIGIN = "example.test/monitor/one"


def kinds(lines: list[bytes]) -> list[str]:
    return ["header" if b'"lictor"' in line else next(iter(orjson.loads(line))) for line in lines]


def where(lines: list[bytes], kind: str) -> list[int]:
    return [number for number, found in enumerate(kinds(lines)) if found == kind]


def entry_line(data: bytes) -> bytes:
    """An entry with the leaf hash that it has."""
    return b'{"entry":%s,"leaf":"%s"}\n' % (data, base64url.encode(leaf_hash(data)).encode())


def altered(line: bytes, **changes: Any) -> bytes:
    """The entry line with other members, canonical and with its own leaf hash."""
    return entry_line(canonical({**orjson.loads(line)["entry"], **changes}))


def test_the_file_and_the_ledger_are_intact(made: Any, lines: list[bytes]) -> None:
    report = verify_log(made.evidence, made.ca)
    assert report == verify_log(made.ledger, made.ca)
    assert (report.verdict, report.exit_code, report.problem, report.origin) == ("intact", 0, None, ORIGIN)
    assert report.entries == report.declared == report.proved == len(where(lines, "entry"))
    assert report.bets == len(where(lines, "bet")) > 15
    assert report.ects == len(where(lines, "ect")) > 3
    assert report.root == root(leaf_hash(canonical(orjson.loads(x)["entry"])) for x in lines if b'"leaf"' in x).hex()


async def test_a_ledger_is_verified_while_the_monitor_writes_it(log: Any, running: Any) -> None:
    ledger, _ = running()
    await ledger.commit()
    before = verify_log(log.ledger, log.ca)
    ledger.add({"agent_id": "spiffe://example.test/agent/new", "action_parameters": {}, "behaviors": []})
    await ledger.commit()
    report = verify_log(log.ledger, log.ca)
    assert (report.verdict, report.entries, report.uncovered) == ("intact", before.entries + 1, before.uncovered + 1)
    await ledger.close()


async def test_a_log_is_intact_at_every_moment(log: Any, running: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, recorder = running()
    record = recorder.record_action
    verdicts = []

    async def record_and_verify(draft: Any) -> Any:
        receipt = await record(draft)
        verdicts.append(str(verify_log(log.ledger, log.ca).problem))
        return receipt

    monkeypatch.setattr(recorder, "record_action", record_and_verify)
    await log.story(recorder)
    assert (set(verdicts), len(verdicts) > 20) == ({"None"}, True)
    await ledger.close()


def test_an_empty_log_is_intact(tmp_path: Path, made: Any, evidence_signer: KeySigner) -> None:
    store = SqliteStore(tmp_path / "empty.db")
    Ledger.open(store, ORIGIN, evidence_signer)
    key = [line for line in made.lines() if line.startswith(b'{"key"')]
    exported = list(export_lines(store))
    report = verify_lines([exported[0], *key, exported[1]], made.ca)
    assert (report.verdict, report.entries) == ("intact", 0)
    store.close()


def test_a_file_cut_off_anywhere_is_a_prefix(lines: list[bytes], verify: Callable[[list[bytes]], LogReport]) -> None:
    whole = verify(lines)
    proved = set()
    for number in range(len(lines)):
        for kept in (b"", lines[number][: -1 - number]):
            report = verify([*lines[:number], kept] if kept else lines[:number])
            assert (report.verdict, report.exit_code) == ("prefix_only", 3)
            assert report.entries == sum(1 for line in lines[:number] if b'"leaf"' in line)
            assert report.proved <= report.entries
            assert report.bets + report.bets_beyond <= whole.bets
            proved.add(report.proved)
    assert len(proved) > 10


def test_a_prefix_says_what_it_holds(lines: list[bytes], verify: Callable[[list[bytes]], LogReport]) -> None:
    first = where(lines, "entry")[0]
    count = len(where(lines, "entry"))
    assert str(verify(lines[: first + 7]).problem) == (
        f"the file ends after line {first + 7}, without its end line: "
        f"expected {count} entries and an end line, found entries 0 to 6 of {count} (at seq 7)"
    )
    assert str(verify([*lines[: first + 7], lines[first + 7][:9]]).problem).startswith(
        f"the file ends within line {first + 8}:"
    )
    assert str(verify([]).problem).startswith("the file is empty")


def test_every_altered_entry_is_named(lines: list[bytes], verify: Callable[[list[bytes]], LogReport]) -> None:
    for seq, number in enumerate(where(lines, "entry")):
        line = lines[number]
        place = line.index(b"item/") if b"item/" in line else line.index(b"example")
        changed = line[:place] + b"I" + line[place + 1 :]
        report = verify([*lines[:number], changed, *lines[number + 1 :]])
        assert (report.verdict, report.exit_code, report.entries) == ("bad", 1, seq)
        assert report.problem is not None
        assert report.problem.seq == seq
        assert report.problem.what == "an entry was altered: its hash is not its leaf hash"


def test_no_line_bears_an_altered_byte(lines: list[bytes], verify: Callable[..., LogReport]) -> None:
    for number, line in enumerate(lines):
        for bit, place in ((0, 1 + number % 8), (5, len(line) // 3), (1, len(line) - 4)):
            changed = bytearray(line)
            changed[place] ^= 1 << bit
            report = verify([*lines[:number], bytes(changed), *lines[number + 1 :]])
            assert report.verdict in ("bad", "gap", "prefix_only"), (number, place, line)


def test_a_missing_entry_is_a_gap(lines: list[bytes], verify: Callable[[list[bytes]], LogReport]) -> None:
    first = where(lines, "entry")[0]
    report = verify(lines[: first + 5] + lines[first + 6 :])
    assert (report.verdict, report.exit_code) == ("gap", 3)
    assert str(report.problem) == "entry 5 is missing: expected seq 5, found seq 6 (at seq 5)"
    assert str(verify(lines[:first] + lines[first + 3 :]).problem).startswith("entries 0 to 2 are missing")


def test_missing_last_entries_are_a_prefix(lines: list[bytes], verify: Callable[[list[bytes]], LogReport]) -> None:
    count = len(where(lines, "entry"))
    report = verify(lines[:-3] + lines[-1:])
    assert (report.verdict, report.exit_code) == ("prefix_only", 3)
    assert str(report.problem).startswith(
        f"entries are missing at the end: expected {count} entries, found {count - 2}"
    )


def test_a_shorter_log_in_every_word_but_the_signed_ones_is_a_prefix(
    lines: list[bytes], verify: Callable[[list[bytes]], LogReport]
) -> None:
    count = len(where(lines, "entry"))
    header = lines[0].replace(b'"count":%d' % count, b'"count":%d' % (count - 1))
    end = lines[-1].replace(b'"count":%d' % count, b'"count":%d' % (count - 1))
    report = verify([header, *lines[1:-2], end])
    assert (report.verdict, report.exit_code) == ("prefix_only", 3)
    assert report.problem is not None
    assert "was signed" in report.problem.what


def test_an_older_signed_checkpoint_does_not_hide_what_bets_rest_on(
    lines: list[bytes], verify: Callable[[list[bytes]], LogReport], evidence_signer: KeySigner
) -> None:
    entries = [lines[number] for number in where(lines, "entry")][:20]
    leaves = [leaf_hash(canonical(orjson.loads(line)["entry"])) for line in entries]
    note = CheckpointSigner(ORIGIN, evidence_signer).sign(20, root(leaves))
    header = canonical({**orjson.loads(lines[0]), "count": 20, "checkpoint": note}) + b"\n"
    end = canonical({"end": {"count": 20, "checkpoint": note}}) + b"\n"
    others = [line for line, kind in zip(lines, kinds(lines), strict=True) if kind in ("key", "binding", "bet")]
    report = verify([header, *others, *entries, end])
    assert (report.verdict, report.exit_code) == ("prefix_only", 3)
    assert report.problem is not None
    assert "rests on entries that are not there" in report.problem.what


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        pytest.param(lambda a, b: [a, a, b], "where another belongs: expected seq 11, found seq 10", id="twice"),
        pytest.param(lambda a, b: [altered(a, decision="deny"), b], "one of the entries", id="another decision"),
        pytest.param(
            lambda a, b: [a, altered(b, timestamp=orjson.loads(a)["entry"]["timestamp"])],
            "not later than the one before it",
            id="time stands",
        ),
        pytest.param(lambda a, b: [a, altered(b, timestamp="1")], "no seq or no timestamp", id="time is text"),
        pytest.param(lambda a, b: [altered(a, seq=True), b], "no seq or no timestamp", id="seq is a bool"),
        pytest.param(lambda a, b: [altered(a, behaviors=3), b], "lacks what entries have", id="no behaviors"),
        pytest.param(
            lambda a, b: [entry_line(orjson.dumps(orjson.loads(a)["entry"]).replace(b":", b": ", 1)), b],
            "not in canonical form",
            id="a space",
        ),
        pytest.param(
            lambda a, b: [entry_line(orjson.dumps(orjson.loads(a)["entry"])[:-1] + b',"seq":10}'), b],
            "not in canonical form",
            id="a member twice",
        ),
        pytest.param(lambda a, b: [entry_line(b'{"n":NaN}'), b], "cannot be read", id="not a number"),
        pytest.param(lambda a, b: [entry_line(b'{"n":1e400}'), b], "cannot be read", id="too large a number"),
    ],
)
def test_bad_entries(
    lines: list[bytes], verify: Callable[[list[bytes]], LogReport], spoil: Callable[..., list[bytes]], message: str
) -> None:
    number = where(lines, "entry")[10]
    report = verify([*lines[:number], *spoil(lines[number], lines[number + 1]), *lines[number + 2 :]])
    assert (report.verdict, report.exit_code) == ("bad", 1)
    assert message in str(report.problem)
    assert report.problem is not None
    assert report.problem.seq is not None
    assert report.problem.seq <= 11


def test_an_entry_altered_together_with_its_leaf_is_found_between_two_proofs(
    lines: list[bytes], verify: Callable[[list[bytes]], LogReport]
) -> None:
    for seq, number in enumerate(where(lines, "entry")):
        report = verify([*lines[:number], altered(lines[number], reason="x"), *lines[number + 1 :]])
        assert report.verdict == "bad"
        assert report.problem is not None
        assert report.problem.seq is not None
        assert report.problem.seq <= seq


def test_a_node_of_this_monitor_must_be_signed_by_it(lines: list[bytes], verify: Callable[..., LogReport]) -> None:
    one, two = (orjson.loads(lines[number])["ect"].split(".") for number in where(lines, "ect")[:2])
    swapped = canonical({"ect": ".".join([*one[:2], two[2]])}) + b"\n"
    number = where(lines, "ect")[0]
    report = verify([*lines[:number], swapped, *lines[number + 1 :]])
    assert report.verdict == "bad"
    assert str(report.problem) == f"line {number + 1}: the signature is wrong"


def test_keys_lead_to_the_ca_and_to_the_monitor_of_the_log(
    made: Any, lines: list[bytes], verify: Callable[..., LogReport], tmp_path: Path
) -> None:
    other = TrustDomain.create(tmp_path / "trust", "example.test")
    other.add_monitor("one")
    report = verify_log(made.evidence, other.identity_ca.read_bytes())
    assert (report.verdict, report.exit_code) == ("bad", 1)
    assert "not signed by the identity CA" in str(report.problem)
    made.trust.add_monitor("two")
    pem = (made.trust.path / "monitors" / "two" / "evidence.pem").read_bytes()
    key = canonical({"key": evidence_jwk(pem)}) + b"\n"
    assert "a key is not of the monitor of this log" in str(verify([lines[0], key, *lines[1:]]).problem)
    (number,) = where(lines, "key")
    report = verify(lines[:number] + lines[number + 1 :])
    assert report.verdict == "bad"
    assert "no key" in str(report.problem)


def test_a_checkpoint_of_an_unknown_key_is_bad(lines: list[bytes], verify: Callable[..., LogReport]) -> None:
    stranger = CheckpointSigner(ORIGIN, KeySigner.of(Ed25519PrivateKey.generate()))
    header = orjson.loads(lines[0])
    note = stranger.sign(header["count"], bytes(32))
    end = canonical({"end": {"count": header["count"], "checkpoint": note}}) + b"\n"
    report = verify([canonical({**header, "checkpoint": note}) + b"\n", *lines[1:-1], end])
    assert report.verdict == "bad"
    assert "no known key signed the note" in str(report.problem)


def test_a_log_without_entries_and_keys_is_not_intact(lines: list[bytes], verify: Callable[..., LogReport]) -> None:
    assert verify([lines[0], lines[-1]]).verdict == "bad"


def test_the_end_line_repeats_the_first(lines: list[bytes], verify: Callable[..., LogReport]) -> None:
    end = json.loads(lines[-1])
    end["end"]["count"] += 1
    report = verify([*lines[:-1], canonical(end) + b"\n"])
    assert "not of the same checkpoint" in str(report.problem)


@pytest.mark.parametrize(
    ("sql", "verdict", "message"),
    [
        ("UPDATE entries SET data = replace(data, 'example', 'exAmple') WHERE seq = 21", "bad", "(at seq 21)"),
        ("DELETE FROM entries WHERE seq = 7", "gap", "entry 7 is missing"),
        ("DELETE FROM entries WHERE seq > 50", "prefix_only", "entries are missing at the end"),
        ("DELETE FROM bets WHERE id = 3", "gap", "is missing before BET"),
        ("UPDATE head SET checkpoint = replace(checkpoint, 'one', 'two')", "bad", "checkpoint"),
    ],
)
def test_a_spoilt_ledger(log: Any, sql: str, verdict: str, message: str) -> None:
    db = sqlite3.connect(log.ledger)
    changed = db.execute(sql)
    assert changed.rowcount > 0
    db.commit()
    db.close()
    report = verify_log(log.ledger, log.ca)
    assert report.verdict == verdict
    assert message in str(report.problem)


def test_what_is_neither_file_nor_ledger(tmp_path: Path, made: Any) -> None:
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        verify_log(tmp_path / "none", made.ca)
    (tmp_path / "text").write_text('{"hello":"world"}\n')
    report = verify_log(tmp_path / "text", made.ca)
    assert report.verdict == "bad"
    assert "line 1: not an evidence file" in str(report.problem)


async def test_memory_does_not_grow_with_the_log(tmp_path: Path, made: Any, evidence_signer: KeySigner) -> None:
    ledger = Ledger.open(SqliteStore(tmp_path / "ledger.db"), ORIGIN, evidence_signer)
    files = made.trust.path / "monitors" / "one"
    ledger.put_document("key", evidence_signer.kid, evidence_jwk((files / "evidence.pem").read_bytes()))
    peaks = []
    for size in (2000, 8000):
        while ledger.size < size:
            ledger.add({"agent_id": "spiffe://example.test/agent/a", "padding": "x" * 1000})
        await ledger.commit()
        tracemalloc.start()
        assert verify_log(tmp_path / "ledger.db", made.ca).verdict == "intact"
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] * 1.2
    await ledger.close()


def test_a_reader_closes_after_a_verdict_in_the_middle(log: Any) -> None:
    db = sqlite3.connect(log.ledger)
    db.execute("DELETE FROM entries WHERE seq = 7")
    db.commit()
    assert verify_log(log.ledger, log.ca).verdict == "gap"
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    SqliteReader(log.ledger).close()


def test_how_far_it_is_can_be_watched(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lictor.verifier.log.TOLD_EVERY", 8)
    for path in (made.evidence, made.ledger):
        told: list[tuple[int, int]] = []
        report = verify_log(path, made.ca, progress=lambda done, total, told=told: told.append((done, total)))
        assert (report.verdict, told) == ("intact", sorted(told))
        assert {total for _, total in told} == {report.entries}
        assert len({done for done, _ in told}) >= report.entries // 8
