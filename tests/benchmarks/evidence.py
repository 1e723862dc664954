"""What evidence costs: appending, issuing and verifying at size, against what the machine does at the least."""

from __future__ import annotations

import asyncio
import copy
import gc
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from lictor.certs.domain import TrustDomain
from lictor.certs.evidence_keys import EvidenceKeys, evidence_jwk
from lictor.evidence.entry import OutcomeDraft, Receipt
from lictor.evidence.export import write_export
from lictor.evidence.issuer import Issuer
from lictor.evidence.ledger import Ledger
from lictor.evidence.lineage import Place
from lictor.evidence.recorder import PolicyInfo, Recorder
from lictor.evidence.sqlite_store import SqliteReader, SqliteStore
from lictor.evidence.store import Durability
from lictor.evidence.windows import Window
from lictor.formats import jws
from lictor.formats.canonical import digest
from lictor.formats.keys import KeySigner
from lictor.proxy import loop
from lictor.proxy.channel import Frames
from lictor.proxy.desk import Desk
from lictor.verifier.bets import verify_bet
from lictor.verifier.log import verify_log

from .appending import OUTCOME, draft
from .bare import Answering

ROOT = Path(__file__).parents[2]
DOMAIN = "example.test"
MONITOR = f"spiffe://{DOMAIN}/monitor/one"
BINDING = {"policy_id": "urn:p:a", "version": "1.0.0", "expected_behaviors": [{"behavior_id": "reads"}]}
POLICY = PolicyInfo("urn:p:a", "1.0.0", digest(BINDING), {"reads": "high"})
SAID = [
    {"policy_id": "urn:p:a", "version": "1.0.0", "binding": POLICY.digest, "behavior_id": "reads", "result": "pass"}
]
ENTRIES = 1_000_000
FEW = 1_000
AT_ONCE = 250
BETS = 10_000
ROUNDS = 5
APPEND_ROUNDS = 12
APPEND_S = 0.5
MAKE = "make"


def measure(directory: Path) -> dict[str, float]:
    """All figures of this module; everything is made in `directory`, which is on the disk to measure."""
    trust = TrustDomain.create(directory / "evidence-trust", DOMAIN)
    trust.add_monitor("one")
    figures = _appending(directory, trust)
    figures |= _issuing(directory, trust)
    figures |= _at_size(directory, trust)
    for name, value in figures.items():
        print(f"{name:32} {value:12.3f}")
    return figures


def _signer(trust: TrustDomain) -> KeySigner:
    return KeySigner.from_file(trust.path / "monitors" / "one" / "evidence.key")


@contextmanager
def _recording(path: Path, trust: TrustDomain, durability: Durability) -> Iterator[tuple[Ledger, Recorder]]:
    """A ledger and its recorder, as the control process has them. Whoever uses them closes the ledger."""
    store = SqliteStore(path, durability)
    ledger = Ledger.open(store, MONITOR.removeprefix("spiffe://"), _signer(trust))
    evidence = (trust.path / "monitors" / "one" / "evidence.pem").read_bytes()
    ledger.put_document("key", _signer(trust).kid, evidence_jwk(evidence))
    ledger.put_document("binding", POLICY.digest, BINDING)
    yield ledger, Recorder(ledger, _signer(trust), MONITOR, lambda _: (POLICY,), (), 3600.0, 0.0, stored=store)


# --- durable appends ---


def _appending(directory: Path, trust: TrustDomain) -> dict[str, float]:
    rounds = loop.run(_append_rounds(directory, trust))
    for one in rounds:
        print(
            f"durable appends/s {one.receipts:8.0f}   fsyncs/s {one.syncs:8.0f}   {one.receipts / one.syncs:6.2f}"
            f"   bare {one.bare / one.syncs:6.2f}"
            f"   CPU of an append: control process {one.control_us:5.1f} us, worker {one.worker_us:5.1f} us"
        )
    return {
        "durable_appends_vs_fsync": statistics.median(one.receipts / one.syncs for one in rounds),
        "bare_durable_vs_fsync": statistics.median(one.bare / one.syncs for one in rounds),
        "fsyncs_per_s": statistics.median(one.syncs for one in rounds),
        "cpu_us_per_append_control": statistics.median(one.control_us for one in rounds),
        "cpu_us_per_append_worker": statistics.median(one.worker_us for one in rounds),
    }


class _Round(NamedTuple):
    """Receipts, answers without any work (`bare`) and fsyncs a second, one after the other; the CPU of an append."""

    receipts: float
    bare: float
    syncs: float
    control_us: float
    worker_us: float


async def _append_rounds(directory: Path, trust: TrustDomain) -> list[_Round]:
    path = directory / "appended.db"
    with _recording(path, trust, "commit") as (ledger, recorder):
        desk = Desk(recorder, None)  # type: ignore[arg-type]  # no delegation is asked of it
        worker, ours = await _child("tests.benchmarks.appending")
        frames = Frames(lambda frame: desk.take(frame, frames, worker), lambda: None)
        running = asyncio.get_running_loop()
        await running.create_connection(lambda: frames, sock=ours)
        bare, other = await _child("tests.benchmarks.bare")
        await running.create_connection(lambda: Answering(directory / "bare"), sock=other)
        rounds = []
        for _ in range(1 + APPEND_ROUNDS):
            began = time.process_time()
            receipts, took, cpu = await _asked(worker, APPEND_S)
            own = time.process_time() - began
            assert worker.stdout
            assert await worker.stdout.readline() == b"told\n"
            answers, needed = await _asked(bare, APPEND_S)
            syncs = await asyncio.to_thread(_fsync_rate, directory)
            each = 1e6 / receipts
            rounds.append(_Round(receipts / took, answers / needed, syncs, own * each, cpu * each))
        for child in (worker, bare):
            assert child.stdin
            child.stdin.close()
            await child.wait()
        await ledger.close()
    return rounds[1:]


async def _child(module: str) -> tuple[asyncio.subprocess.Process, socket.socket]:
    """A process that asks over the other end of the socket."""
    ours, theirs = socket.socketpair()
    with theirs:
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", module, str(theirs.fileno())),
            cwd=ROOT,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
    return child, ours


async def _asked(child: asyncio.subprocess.Process, seconds: float) -> list[float]:
    """What it says after it has worked for so long."""
    assert child.stdin
    assert child.stdout
    child.stdin.write(f"{seconds}\n".encode())
    return [float(word) for word in (await child.stdout.readline()).split()]


def _fsync_rate(directory: Path, seconds: float = 0.25) -> float:
    """How often a second 4 KiB can be written and synced, in place: a file that grows would need its journal too."""
    with (directory / "synced").open("wb", buffering=0) as file:
        file.write(bytes(1 << 20))
        os.fsync(file.fileno())
        done, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds:
            os.pwrite(file.fileno(), b"x" * 4096, done % 256 * 4096)
            os.fdatasync(file.fileno())
            done += 1
        return done / (time.perf_counter() - began)


# --- BETs ---


def _issuing(directory: Path, trust: TrustDomain) -> dict[str, float]:
    return loop.run(_issue_and_verify(directory, trust))


async def _issue_and_verify(directory: Path, trust: TrustDomain) -> dict[str, float]:
    with _recording(directory / "issued.db", trust, "os") as (ledger, _):
        signer = _signer(trust)
        issuer = Issuer(ledger, signer, MONITOR, (MONITOR,))
        ledger.add({"agent_id": "spiffe://example.test/agent/a"})
        small, big = (_window(ledger.now(), entries) for entries in (10, ENTRIES))
        place = Place("00000000-0000-4000-8000-000000000000", "00000000-0000-4000-8000-000000000000", "root")

        def issue(window: Window) -> str:
            # `issue` gives the window another hash and leaves the one that it had alone, so a shallow copy will do.
            return issuer.issue(copy.copy(window), place, ledger.now(), "interval")

        costs = [(_seconds(issue, big), _seconds(issue, small)) for _ in range(500)]
        tokens = [issue(small) for _ in range(BETS)]
        await ledger.close()
    keys = EvidenceKeys(trust.identity_ca.read_bytes())
    keys.add_jwk(evidence_jwk((trust.path / "monitors" / "one" / "evidence.pem").read_bytes()))
    public, parsed = signer.public_key(), [jws.parse_compact(token, typ=frozenset({"bet+jwt"})) for token in tokens]
    assert all(verify_bet(token, keys, audience=None, now=None).ok for token in tokens)
    ratios = []
    for at in range(0, BETS, BETS // ROUNDS):
        part, bare = tokens[at : at + BETS // ROUNDS], parsed[at : at + BETS // ROUNDS]
        began = time.perf_counter()
        for one in bare:
            jws.verify_raw("EdDSA", one.signing_input, one.signature, public)
        middle = time.perf_counter()
        for token in part:
            verify_bet(token, keys, audience=None, now=None)
        ratios.append((middle - began) / (time.perf_counter() - middle))
    return {
        "bet_1m_vs_10": statistics.median(one / other for one, other in costs),
        "bet_verify_vs_bare_signature": statistics.median(ratios),
    }


def _window(start: float, entries: int) -> Window:
    window = Window("spiffe://example.test/agent/a", POLICY, start, 0, None)
    data = json.dumps({"padding": "x" * 500}).encode()
    for seq in range(entries):
        window.add(seq, data)
        window.judge("reads", "pass", "allow")
    return window


def _seconds(work: Callable[[Window], object], window: Window) -> float:
    began = time.perf_counter()
    work(window)
    return time.perf_counter() - began


# --- a log of a million entries ---


def _at_size(directory: Path, trust: TrustDomain) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.benchmarks.evidence", MAKE, str(directory), str(trust.path)]
    made = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    memory = json.loads(made.stdout)
    ledger, evidence = directory / "large.db", directory / "large.jsonl"
    with closing(SqliteReader(ledger)) as reader:
        write_export(reader, evidence)
    size = ledger.stat().st_size / ENTRIES
    ledger.unlink()
    began = time.perf_counter()
    report = verify_log(evidence, trust.identity_ca.read_bytes())
    took = time.perf_counter() - began
    if (report.verdict, report.entries) != ("intact", ENTRIES):
        raise SystemExit(f"the large log is {report.verdict}: {report.problem}")
    return {
        "log_verify_entries_per_s": ENTRIES / took,
        "control_memory_1m_vs_1k": memory["many"] / memory["few"],
        "bytes_per_entry": size,
    }


async def _make(directory: Path, trust: TrustDomain) -> dict[str, int]:
    """Record ENTRIES (actions, their outcomes, BETs now and then); resident octets after FEW and after all."""
    memory = {}
    with _recording(directory / "large.db", trust, "os") as (ledger, recorder):
        while ledger.size < ENTRIES:
            first = ledger.size
            agents = (f"spiffe://{DOMAIN}/agent/a{number % 4}" for number in range(AT_ONCE))
            drafts = [draft(agent, first + number, SAID) for number, agent in enumerate(agents)]
            receipts: list[Receipt] = await asyncio.gather(*map(recorder.record_action, drafts))
            for receipt in receipts:
                await recorder.record_outcome(OutcomeDraft(receipt.seq, OUTCOME))
            if not ledger.size % (ENTRIES // 50):
                await recorder.close()
            if ledger.size == FEW:
                memory["few"] = _resident()
        await recorder.close()
        memory["many"] = _resident()
        await ledger.close()
    return memory


def _resident() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__" and sys.argv[1] == MAKE:
    print(json.dumps(loop.run(_make(Path(sys.argv[2]), TrustDomain.open(Path(sys.argv[3]))))))
