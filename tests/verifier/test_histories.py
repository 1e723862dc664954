"""Two histories of one log, each of which verifies by itself, are found out where they come together."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from lictor.certs.evidence_keys import EvidenceKeys
from lictor.evidence.bet import Bet
from lictor.evidence.export import write_export
from lictor.evidence.merkle import leaf_hash
from lictor.evidence.sqlite_store import SqliteReader
from lictor.formats import base64url
from lictor.formats.canonical import canonical
from lictor.verifier.bets import find_tokens, take_keys, verify_bet
from lictor.verifier.histories import check_histories
from lictor.verifier.log import verify_log
from lictor.verifier.report import LogReport


@pytest.fixture
def forked(log: Any, running: Any, tmp_path: Path) -> tuple[Path, Path, Path]:
    """The log as it was, and two that went on from there, each in its own way."""
    paths = tmp_path / "before.db", tmp_path / "one.db", tmp_path / "other.db"

    async def go_on(rounds: int) -> None:
        ledger, recorder = running()
        await log.work(recorder, rounds)
        await recorder.close()
        await ledger.close()

    shutil.copy(log.ledger, paths[0])
    for rounds, path in enumerate(paths[1:], 1):
        shutil.copy(paths[0], log.ledger)
        asyncio.run(go_on(rounds))
        shutil.copy(log.ledger, path)
    return paths


@pytest.fixture
def reports(made: Any) -> Callable[[list[Path]], dict[str, tuple[Path, LogReport]]]:
    def verified(paths: list[Path]) -> dict[str, tuple[Path, LogReport]]:
        found = {path.name: (path, verify_log(path, made.ca)) for path in paths}
        assert {report.verdict for _, report in found.values()} == {"intact"}
        return found

    return verified


def bets_of(path: Path, ca: bytes) -> list[Bet]:
    keys = EvidenceKeys(ca)
    take_keys(keys, path)
    reports = [verify_bet(token, keys, audience=None, now=None) for token in find_tokens(str(path))]
    return [report.bet for report in reports if report.bet is not None]


def test_two_histories_are_bad_together(forked: tuple[Path, ...], reports: Any) -> None:
    before, one, other = forked
    found = check_histories(reports([one, other]))
    assert [verdict for verdict, _ in found] == ["bad"]
    problem, sizes = found[0][1], [report.proved for _, report in reports([one, other]).values()]
    assert "two histories: one.db and other.db" in problem.what
    assert f"differ in their first {min(sizes)} entries" in problem.what
    assert len(check_histories(reports([before, one, other]))) == 1


def test_a_log_and_what_it_was_before_are_of_one_history(forked: tuple[Path, ...], reports: Any) -> None:
    before, one, other = forked
    for later in (one, other):
        assert check_histories(reports([before, later])) == check_histories(reports([later, before])) == []
    assert check_histories(reports([one])) == check_histories({}) == []


def test_a_bet_of_another_history(made: Any, forked: tuple[Path, ...], reports: Any) -> None:
    """A token that somebody got, and the log that he is shown afterwards."""
    before, one, other = forked
    newest = bets_of(one, made.ca)[-1]
    found = check_histories(reports([other]), [newest])
    assert [verdict for verdict, _ in found] == ["bad"]
    assert (
        f"BET {newest.jti} rests on {newest.ext['checkpoint_size']} other entries than other.db has" in found[0][1].what
    )
    assert check_histories(reports([one]), [newest]) == []
    found = check_histories(reports([before]), [newest])
    assert [verdict for verdict, _ in found] == ["prefix_only"]
    size = newest.ext["checkpoint_size"]
    assert (found[0][1].expected, found[0][1].seq) == (f"{size} entries", reports([before])["before.db"][1].proved)
    assert check_histories(reports([before, one]), [newest]) == []


def test_bets_that_say_nothing_of_a_tree_or_of_this_log(made: Any, forked: tuple[Path, ...], reports: Any) -> None:
    newest = bets_of(forked[1], made.ca)[-1]
    for ext in ({}, {"checkpoint_size": True}, {**newest.ext, "checkpoint_root": None}):
        assert check_histories(reports([forked[2]]), [replace(newest, ext=ext)]) == []
    assert check_histories(reports([forked[2]]), [replace(newest, issuer="spiffe://example.test/monitor/two")]) == []


def test_what_is_not_proven_accuses_nobody(made: Any, forked: tuple[Path, ...], tmp_path: Path) -> None:
    """Of a file that was cut off, or is bad, only what a signed root covers."""
    reader = SqliteReader(forked[1])
    write_export(reader, tmp_path / "one.jsonl")
    reader.close()
    lines = (tmp_path / "one.jsonl").read_bytes().splitlines(keepends=True)
    entries = [number for number, line in enumerate(lines) if line.startswith(b'{"entry":')]
    whole = verify_log(tmp_path / "one.jsonl", made.ca)
    for name, verdict, number, end in (("cut", "prefix_only", 8, 9), ("bad", "bad", 8, None)):
        data = orjson.loads(lines[entries[number]])["entry"]
        forged = canonical({**data, "reason": "another"})
        line = b'{"entry":%s,"leaf":"%s"}\n' % (forged, base64url.encode(leaf_hash(forged)).encode())
        spoilt = [*lines[: entries[number]], line, *lines[entries[number] + 1 :]]
        path = tmp_path / f"{name}.jsonl"
        path.write_bytes(b"".join(spoilt[: entries[end] if end else None]))
        report = verify_log(path, made.ca)
        assert (report.verdict, 0 < report.proved <= number < report.entries) == (verdict, True)
        assert check_histories({"one": (tmp_path / "one.jsonl", whole), name: (path, report)}) == []
