"""Interleaved rounds: every contestant once a round, in changing order, so that all meet the same machine."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from .contestants import Contestant, Upstream
from .load import Load

ROOT = Path(__file__).parents[2]
TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Discipline:
    """One kind of load. `processes` load generators share the `connections`."""

    name: str
    mode: str
    scheme: str
    connections: int
    rounds: int
    seconds: float
    processes: int = 1


@dataclass(frozen=True, slots=True)
class Score:
    """One contestant in one round. CPU in ms per request, of the root process and of its children; latencies in ms."""

    rate: float
    p50: float
    p99: float
    errors: int
    cpu_root: float
    cpu_children: float
    cpu_generator: float


def compete(discipline: Discipline, contestants: Sequence[Contestant], up: Upstream) -> dict[str, list[Score]]:
    """All rounds of a discipline. Scores of one index belong to one round."""
    scores: dict[str, list[Score]] = {contestant.name: [] for contestant in contestants}
    for turn in range(discipline.rounds):
        shift = turn % len(contestants)
        for contestant in (*contestants[shift:], *contestants[:shift]):
            scores[contestant.name].append(_run(discipline, contestant, up))
    return scores


def _run(discipline: Discipline, contestant: Contestant, up: Upstream) -> Score:
    load = replace(
        contestant.load,
        mode=discipline.mode,
        connections=discipline.connections // discipline.processes,
        seconds=discipline.seconds,
    )
    if discipline.scheme == "http":
        load = replace(load, target_port=up.http_port, target_ca=None)
    root = contestant.process.pid if contestant.process else None
    family = [root, *_descendants(root)] if root else []
    before = [_cpu_ms(pid) for pid in family]
    results = _generate(load, discipline.processes)
    used = [_cpu_ms(pid) - was for pid, was in zip(family, before, strict=True)]
    requests = sum(r["requests"] for r in results)
    if not requests:
        raise SystemExit(f"{contestant.name} answered no request ({discipline.name})")
    latencies = sorted(latency for r in results for latency in r["latencies"])
    # The generators warm up before they count, and what they count is in the same proportion.
    counted = discipline.seconds / (discipline.seconds + (load.warm_up if load.mode == "keepalive" else 0))
    return Score(
        rate=sum(r["requests"] / r["seconds"] for r in results),
        p50=latencies[len(latencies) // 2] * 1000,
        p99=latencies[int(len(latencies) * 0.99)] * 1000,
        errors=sum(r["errors"] for r in results),
        cpu_root=used[0] * counted / requests if used else 0.0,
        cpu_children=sum(used[1:]) * counted / requests,
        cpu_generator=sum(r["cpu_seconds"] for r in results) * 1000 / requests,
    )


def _generate(load: Load, processes: int) -> list[dict]:  # type: ignore[type-arg]
    command = [sys.executable, "-m", "tests.benchmarks.load"]
    started = [
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(processes)
    ]
    for process in started:
        assert process.stdin
        process.stdin.write(json.dumps(asdict(load)).encode())
        process.stdin.close()
    results = []
    for process in started:
        assert process.stdout
        data = process.stdout.read()
        if process.wait():
            raise SystemExit(f"the load generator failed: {load}")
        results.append(json.loads(data))
    return results


def _descendants(root: int) -> list[int]:
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found, queue = [], [root]
    while queue:
        children = parents.get(queue.pop(), [])
        found += children
        queue += children
    return found


def _cpu_ms(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1000 / TICK


def ratio(ours: Sequence[Score], theirs: Sequence[Score]) -> tuple[float, float, float]:
    """Median, smallest and largest of the rounds' ratios of rates."""
    ratios = [one.rate / other.rate for one, other in zip(ours, theirs, strict=True)]
    return statistics.median(ratios), min(ratios), max(ratios)
