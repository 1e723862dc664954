"""Load through a real monitor while processes of it are killed; then the log is held against what the upstream got."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from end_to_end.wire import Wire
from end_to_end.world import Monitor, Outside, Server, binding, target

from lictor.certs.domain import TrustDomain
from lictor.evidence.export import write_export
from lictor.evidence.sqlite_store import SqliteReader
from lictor.verifier.log import verify_log

CLIENTS = 6
WORKERS = 2
PAUSE_S = (0.05, 1.5)
VICTIMS = ("worker", "control", "both")


@dataclass
class Score:
    """What was done and found. `problems` is empty if every promise held."""

    kills: Counter[str] = field(default_factory=Counter)
    received: int = 0
    entries: int = 0
    unknown: int = 0
    bets: int = 0
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        kills = ", ".join(f"{count} of {victim}" for victim, count in sorted(self.kills.items()))
        found = "\n".join(f"  PROBLEM {text}" for text in self.problems) or "  no problem"
        return (
            f"kills {self.kills.total()} ({kills})\n"
            f"upstream received {self.received}, entries checked {self.entries}, BETs {self.bets}, "
            f"outcomes unknown {self.unknown}\n{found}"
        )


def make_monitor(folder: Path, outside: Outside, server: Server) -> Monitor:
    """A monitor before `server`, not started."""
    domain = TrustDomain.create(folder / "trust", "torture.test")
    domain.add_agent("default")
    return Monitor(
        folder / "monitor",
        domain,
        "tortured",
        {"main": binding(http_request=[f"https://localhost:{server.port}/open/**"])},
        # Only so that loopback may be dialled: nothing that the agents ask for is this target.
        target("urn:test:data", "data_source", f"https://localhost:{server.port}/data"),
        more=f'[interception]\nupstream_ca = "{outside.ca}"\n\n[evidence]\ninterval_s = 1\n',
        workers=WORKERS,
    )


@contextlib.contextmanager
def clients(monitor: Monitor, at: str, seed: int) -> Iterator[set[str]]:
    """Each asks for one path after the other, none of them twice; the set gets those that were answered 200."""
    ending = threading.Event()
    answered: set[str] = set()

    def work(number: int) -> None:
        chance = random.Random(f"{seed}/{number}")
        count = itertools.count()
        while not ending.is_set():
            with contextlib.suppress(OSError, EOFError, AssertionError, ValueError), Wire(monitor) as wire:
                wire.tunnel(at)
                for _ in range(chance.randrange(1, 200)):
                    path = f"/open/{number}/{next(count)}"
                    if wire.request("POST", path, body=b"work" * chance.randrange(1, 500)).status == 200:
                        answered.add(path)
                    if ending.is_set():
                        return
            ending.wait(0.02)

    threads = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield answered
    finally:
        ending.set()
        for thread in threads:
            thread.join(30)


def kill_one(monitor: Monitor, victim: str) -> None:
    """SIGKILL; a control process that was killed is started again."""
    assert monitor.process is not None
    control = monitor.process.pid
    with contextlib.suppress(ProcessLookupError, FileNotFoundError):
        workers = monitor.workers()
        if victim == "worker":
            if workers:
                os.kill(random.choice(workers), signal.SIGKILL)
            return
        monitor.kill(control, *(workers if victim == "both" else ()))
    if monitor.process is not None:
        monitor.kill(control)
    monitor.start()


def torture(
    folder: Path, seconds: float, seed: int, say: Callable[[str], None], victims: tuple[str, ...] = VICTIMS
) -> Score:
    """Kill for `seconds`, then check. The choices come from `seed`; what runs meanwhile does not."""
    random.seed(seed)
    outside = Outside(folder / "outside")
    server = Server(outside)
    monitor = make_monitor(folder, outside, server)
    score = Score()
    try:
        monitor.start()
        with clients(monitor, f"localhost:{server.port}", seed) as answered:
            ends = time.monotonic() + seconds
            rounds = itertools.cycle(victims)  # each at least once, then at random
            first = set(victims)
            while time.monotonic() < ends or first:
                time.sleep(random.uniform(*PAUSE_S))
                assert monitor.process is not None
                if monitor.process.poll() is not None:
                    score.problems.append(f"the monitor ended by itself:\n{monitor.output()[-2000:]}")
                    return score
                victim = next(rounds) if first else random.choice(victims)
                first.discard(victim)
                kill_one(monitor, victim)
                score.kills[victim] += 1
                say(f"killed {victim}; upstream has {len(server.requests)}")
            time.sleep(0.5)
        if monitor.stop() != 0:
            score.problems.append(f"the monitor did not end well:\n{monitor.output()[-2000:]}")
        check(score, monitor, server, answered)
    finally:
        monitor.stop()
        server.close()
    return score


def check(score: Score, monitor: Monitor, server: Server, answered: set[str]) -> None:
    """Hold the log against what the upstream received and what clients were answered."""
    at = f"https://localhost:{server.port}"
    received = [path for _, path, _, _ in server.requests]
    entries = monitor.entries()
    score.received, score.entries = len(received), len(entries)
    agents = [e for e in entries if "/agent/" in e["agent_id"]]
    actions = {e["seq"]: e for e in agents if "outcome_of" not in e and e["decision"] != "deny"}
    recorded = {e["action_target"] for e in actions.values()}
    for what, paths in (("received", received), ("answered", sorted(answered))):
        lost = [path for path in paths if at + path not in recorded]
        if lost:
            score.problems.append(f"{what} without an entry: {len(lost)}, such as {lost[0]}")
    if len(set(received)) < len(received):
        score.problems.append("something was sent upstream twice")
    outcomes = Counter(e["outcome_of"] for e in entries if "outcome_of" in e)
    bare = [seq for seq in actions if outcomes[seq] != 1]
    if bare or outcomes.keys() - actions.keys():
        score.problems.append(f"{len(bare)} actions have not one outcome, such as {actions[bare[0]] if bare else ''}")
    unknown = [e for e in entries if str(e.get("outcome", {}).get("error", "")).startswith("unknown: ")]
    score.unknown = len(unknown)
    if score.unknown > CLIENTS * score.kills.total():
        score.problems.append(f"{score.unknown} outcomes are unknown, more than were on their way")
    _check_evidence(score, monitor)


def _check_evidence(score: Score, monitor: Monitor) -> None:
    """An outsider's view: the export is intact, and every entry is under a BET of an unbroken chain."""
    reader = SqliteReader(monitor.path / "data/ledger.sqlite")
    write_export(reader, monitor.path / "evidence.jsonl")
    reader.close()
    report = verify_log(monitor.path / "evidence.jsonl", monitor.domain.identity_ca.read_bytes())
    score.bets = report.bets
    if report.verdict != "intact" or report.entries != score.entries:
        score.problems.append(f"the log is {report.verdict}: {report.problem}")
    if report.uncovered:
        score.problems.append(f"{report.uncovered} entries are under no BET")
