"""`lictor log prove` and `check-proof`: proofs from a ledger on disk, checked from the file; forgeries are refused."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lictor.certs.domain import TrustDomain
from lictor.certs.evidence_keys import evidence_jwk
from lictor.cli import cli
from lictor.evidence.cosignature import Cosigner
from lictor.evidence.ledger import Ledger
from lictor.evidence.sqlite_store import SqliteStore
from lictor.evidence.store import BetRow, CheckpointRow
from lictor.formats.errors import UsageError
from lictor.formats.keys import KeySigner
from lictor.formats.signed_note import parse_note

ORIGIN = "example.test/monitor/one"
COUNT = 700
WITNESS = Cosigner("w.example", KeySigner.of(Ed25519PrivateKey.from_private_bytes(bytes([7]) * 32)))
OTHER = Cosigner("v.example", KeySigner.of(Ed25519PrivateKey.from_private_bytes(bytes([8]) * 32)))


async def _write(path: Path, files: Path) -> None:
    signer = KeySigner.from_file(files / "evidence.key")
    ledger = Ledger.open(SqliteStore(path), ORIGIN, signer)
    ledger.put_document("key", signer.kid, evidence_jwk((files / "evidence.pem").read_bytes()))
    for number in range(COUNT):
        ledger.add({"agent_id": "spiffe://example.test/agent/a", "action_type": "x", "n": number})
        if number == 299:
            ledger.add_bet(BetRow("b", "a", "p", 0, 300, 0.0, 1.0, "token"))
    await ledger.close()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prove")
    domain = TrustDomain.create(folder / "trust", "example.test")
    domain.add_monitor("one")
    asyncio.run(_write(folder / "ledger.db", domain.path / "monitors" / "one"))
    (folder / "ca.pem").symlink_to(domain.identity_ca)
    (folder / "keys").write_text(f"{WITNESS.witness}\n{OTHER.witness}\n")
    return folder


def prove(place: Path, *args: str) -> str:
    done = CliRunner().invoke(cli, ["log", "prove", *args, "--ledger", str(place / "ledger.db")])
    if done.exception is not None:
        raise done.exception
    return done.stdout


def check(place: Path, text: str, *args: str) -> tuple[int, Any]:
    (place / "proof").write_text(text)
    command = ["log", "check-proof", str(place / "proof"), "--trust", str(place / "ca.pem"), *args, "--json"]
    done = CliRunner().invoke(cli, command)
    if isinstance(done.exception, UsageError):
        raise done.exception
    return done.exit_code, json.loads(done.stdout)


@pytest.mark.parametrize("seq", [0, 1, 255, 256, 511, 512, 699])
def test_an_entry_is_proved_from_the_file_alone(place: Path, seq: int) -> None:
    text = prove(place, str(seq))
    assert text.startswith("c2sp.org/tlog-proof@v1\nextra ")
    code, report = check(place, text)
    assert (code, report["kind"], report["index"], report["size"]) == (0, "inclusion", seq, COUNT)
    assert (report["entry"]["n"], report["origin"]) == (seq, ORIGIN)


def test_under_the_checkpoint_of_a_bet(place: Path) -> None:
    code, report = check(place, prove(place, "7", "--at", "300"))
    assert (code, report["size"], report["index"]) == (0, 300, 7)


@pytest.mark.parametrize(
    ("old", "new", "signed"), [(300, COUNT, True), (300, 300, True), (1, 300, False), (255, COUNT, False)]
)
def test_the_log_only_grew(place: Path, old: int, new: int, signed: bool) -> None:
    code, report = check(place, prove(place, "--from", str(old), "--to", str(new)))
    assert (code, report["old_size"], report["size"], report["old_signed"]) == (0, old, new, signed)


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["7", "--at", "301"], "no signed checkpoint of 301 entries was kept"),
        (["300", "--at", "300"], "entry 300 is not among the 300"),
        (["700"], "entry 700 is not among"),
        (["--from", "701"], "from 1 to 700"),
        (["--from", "1", "--to", "299"], "no signed checkpoint of 299"),
        ([], "say either"),
        (["1", "--from", "2"], "say either"),
        (["1", "--to", "2"], "say either"),
        (["--from", "1", "--at", "2"], "say either"),
    ],
)
def test_what_cannot_be_proved(place: Path, args: list[str], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        prove(place, *args)


def _extra(text: str, change: Callable[[dict[str, Any]], object]) -> str:
    lines = text.split("\n")
    value = json.loads(base64.b64decode(lines[1].removeprefix("extra ")))
    change(value)
    lines[1] = "extra " + base64.b64encode(json.dumps(value).encode()).decode()
    return "\n".join(lines)


def _line(text: str, number: int, line: str | None) -> str:
    lines = text.split("\n")
    lines[number : number + 1] = [] if line is None else [line]
    return "\n".join(lines)


HASH = base64.b64encode(bytes(32)).decode()
FORGED: dict[str, tuple[Callable[[str], str], str]] = {
    "another entry": (lambda t: _extra(t, lambda v: v["entry"].update(n=8)), "is not entry 7"),
    "an index of another entry": (lambda t: _line(t, 2, "index 8"), "is not entry 8"),
    "an index beyond the log": (lambda t: _line(t, 2, "index 700"), "is not entry 700"),
    "an index with a leading zero": (lambda t: _line(t, 2, "index 07"), "no line 'index N'"),
    "a hash changed": (lambda t: _line(t, 3, HASH), "is not entry 7"),
    "a hash left out": (lambda t: _line(t, 4, None), "is not entry 7"),
    "a hash too many": (lambda t: t.replace("\n\n", f"\n{HASH}\n\n", 1), "is not entry 7"),
    "more hashes than any log needs": (lambda t: t.replace("\n\n", "\n" + f"{HASH}\n" * 60 + "\n", 1), "at most 63"),
    "no extra line": (lambda t: _line(t, 1, None), "no extra line"),
    "no keys": (lambda t: _extra(t, lambda v: v.update(keys=[])), "no known key"),
    "another key": (lambda t: _extra(t, lambda v: v["keys"][0].update(iss=f"spiffe://{ORIGIN}x")), "says it is of"),
    "a larger checkpoint": (lambda t: t.replace("\n700\n", "\n701\n"), "signature of .* is wrong"),
    "another origin": (lambda t: t.replace(f"\n{ORIGIN}\n", "\nexample.test/monitor/two\n"), "no known key"),
    "another kind of file": (lambda t: t.replace("@v1", "@v2"), "not a proof"),
    "cut": (lambda t: t[: t.index("\n\n")], "not a proof"),
}  # fmt: skip


@pytest.mark.parametrize("case", FORGED)
def test_a_forged_proof_is_bad(place: Path, case: str) -> None:
    forge, text = FORGED[case]
    code, report = check(place, forge(prove(place, "7")))
    assert (code, report["ok"]) == (1, False)
    with pytest.raises(AssertionError, match=text):
        raise AssertionError(report["problem"])


OLD = {"size": 300, "root": HASH}
FORGED_GROWTH: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "another earlier root": (lambda v: v["from"].update(root=HASH), "earlier checkpoint is not"),
    "another earlier root without its checkpoint": (lambda v: v.update({"from": OLD}), "does not continue"),
    "another earlier size": (lambda v: v["from"].update(size=299), "earlier checkpoint is not"),
    "no earlier size": (lambda v: v["from"].update(size=0), "a size of 1 or more"),
    "an empty proof": (lambda v: v.update(proof=[]), "does not continue"),
    "an unknown member": (lambda v: v.update(more=1), "not a consistency proof"),
    "the checkpoints exchanged": (lambda v: v["to"].update(checkpoint=v["from"]["checkpoint"]), "does not continue"),
}  # fmt: skip


@pytest.mark.parametrize("case", FORGED_GROWTH)
def test_a_forged_consistency_proof_is_bad(place: Path, case: str) -> None:
    change, text = FORGED_GROWTH[case]
    value = json.loads(prove(place, "--from", "300"))
    change(value)
    code, report = check(place, json.dumps(value))
    assert code == 1
    assert text in report["problem"]


def test_another_ca_proves_nothing(place: Path, tmp_path: Path) -> None:
    other = TrustDomain.create(tmp_path / "other", "example.test")
    code, report = check(place, prove(place, "7"), "--trust", str(other.identity_ca))
    assert code == 1
    assert "not signed by the identity CA" in report["problem"]


def test_witnesses_can_be_asked_for(place: Path) -> None:
    policy = ("--witness", str(place / "keys"))
    code, report = check(place, prove(place, "7"), *policy)
    assert code == 1
    assert "cosigned by none of the witnesses, expected 2" in report["problem"]

    async def cosign() -> None:
        store = SqliteStore(place / "ledger.db")
        head = store.head()
        assert head is not None
        ledger = Ledger.open(store, ORIGIN, KeySigner.from_file(place / "trust/monitors/one/evidence.key"))
        note = head.checkpoint + WITNESS.sign(parse_note(head.checkpoint).text, 5)
        ledger.put_checkpoint(CheckpointRow(head.size, note, 1))
        await ledger.close()

    asyncio.run(cosign())
    text = prove(place, "7")
    assert check(place, text, *policy)[0] == 1
    code, report = check(place, text, *policy, "--quorum", "1")
    assert (code, report["witnesses"]) == (0, ["w.example"])
    with pytest.raises(UsageError, match="cannot be asked of 2"):
        check(place, text, *policy, "--quorum", "3")
    with pytest.raises(UsageError, match="--witness"):
        check(place, text, "--quorum", "1")


def test_a_ledger_that_does_not_agree_with_itself_gives_no_proof(place: Path, tmp_path: Path) -> None:
    copy = tmp_path / "ledger.db"
    shutil.copy(place / "ledger.db", copy)
    with sqlite3.connect(copy) as db:
        db.execute("UPDATE subtrees SET root = zeroblob(32) WHERE n = 0")
    db.close()
    done = CliRunner().invoke(cli, ["log", "prove", "300", "--ledger", str(copy)])
    assert "does not agree with its checkpoint" in str(done.exception)
