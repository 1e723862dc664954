"""`make bench`: lictor against mitmdump, squid and no proxy at all; what it costs to decide, to give evidence, and to
hand work on.

Tables for people, `figure NAME VALUE` for machines.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import statistics
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from lictor.certs.domain import TrustDomain

from . import chains, contestants, decision, evidence, verifier
from .contestants import Contestant
from .rounds import ROOT, Discipline, Score, compete, ratio

HTTPS = Discipline("https, keep-alive, 16 connections", "keepalive", "https", 16, 9, 1.2)
HTTP = Discipline("http, keep-alive, 16 connections", "keepalive", "http", 16, 5, 1.0)
NEW = Discipline("https, a new connection for each request, 4 at a time", "new", "https", 4, 5, 1.5, 4)
ALONE = Discipline("https, keep-alive, one connection", "keepalive", "https", 1, 5, 1.0)
MANY = Discipline("https, keep-alive, 32 connections", "keepalive", "https", 32, 5, 1.2, 2)


def main() -> None:
    build = ROOT / "build"
    build.mkdir(exist_ok=True)
    # Not in /tmp, which may be memory: the ledger has to meet a disk.
    directory = Path(tempfile.mkdtemp(prefix="bench-", dir=build))
    directory.chmod(0o755)
    began = time.monotonic()
    try:
        tables, figures = measure(directory)
        figures |= decision.measure()
        figures |= evidence.measure(directory)
        figures |= verifier.measure(directory)
        figures |= chains.measure(directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    for name, value in figures.items():
        print(f"figure {name} {value:.3f}")
    machine = {"python": platform.python_version(), "cpus": os.cpu_count(), "machine": platform.machine()}
    raw = {name: {who: [asdict(s) for s in scores] for who, scores in table.items()} for name, table in tables.items()}
    report = {"figures": {name: round(value, 4) for name, value in figures.items()}, "machine": machine, "rounds": raw}
    (build / "bench.json").write_text(json.dumps(report, indent=1) + "\n")
    print(f"{time.monotonic() - began:.0f} s; everything is in {build / 'bench.json'}")


def measure(directory: Path) -> tuple[dict[str, dict[str, list[Score]]], dict[str, float]]:
    """All disciplines: the scores by discipline and contestant, and the figures."""
    tables: dict[str, dict[str, list[Score]]] = {}
    with contextlib.ExitStack() as stack:
        domain = TrustDomain.create(directory / "trust", contestants.TRUST_DOMAIN)
        up = stack.enter_context(contestants.upstream(directory, domain))
        direct = Contestant("no proxy", up.direct())
        one = stack.enter_context(contestants.lictor(directory / "one", up, 1))
        two = stack.enter_context(contestants.lictor(directory / "two", up, 2))
        dump = stack.enter_context(contestants.mitmdump(directory / "mitmdump", up))
        squid = stack.enter_context(contestants.squid(directory / "squid", up, domain))
        squids = [squid] if squid else []
        for discipline, entered in (
            (HTTPS, [direct, one, dump, *squids]),
            (HTTP, [direct, one, dump, *squids]),
            (NEW, [direct, one, dump, *squids]),
            (ALONE, [direct, one]),
            (MANY, [one, two]),
        ):
            scores = tables[discipline.name] = compete(discipline, entered, up)
            show(discipline, scores, one.name)
    figures = {
        "https_keepalive_vs_mitmdump": ratio(tables[HTTPS.name][one.name], tables[HTTPS.name][dump.name])[0],
        "http_keepalive_vs_mitmdump": ratio(tables[HTTP.name][one.name], tables[HTTP.name][dump.name])[0],
        "https_new_connections_vs_mitmdump": ratio(tables[NEW.name][one.name], tables[NEW.name][dump.name])[0],
    }
    if squid:
        figures["https_keepalive_vs_squid"] = ratio(tables[HTTPS.name][one.name], tables[HTTPS.name][squid.name])[0]
    alone = list(zip(tables[ALONE.name][one.name], tables[ALONE.name][direct.name], strict=True))
    ours = tables[HTTPS.name][one.name]
    figures |= {
        "https_added_p50_ms": statistics.median(a.p50 - b.p50 for a, b in alone),
        "https_added_p99_ms": statistics.median(a.p99 - b.p99 for a, b in alone),
        "two_workers_vs_one": ratio(tables[MANY.name][two.name], tables[MANY.name][one.name])[0],
        "cpu_ms_per_request_worker": statistics.median(score.cpu_children for score in ours),
        "cpu_ms_per_request_control": statistics.median(score.cpu_root for score in ours),
        "fsync_p50_ms": fsync_ms(directory),
    }
    return tables, figures


def show(discipline: Discipline, scores: dict[str, list[Score]], ours: str) -> None:
    """One table: medians, the spread of the rates, and how many times a contestant's rate ours is."""
    print(f"\n{discipline.name}; medians of {discipline.rounds} interleaved rounds")
    print(f"{'':20} {'req/s':>8} {'(min-max)':>15} {'p50 ms':>8} {'p99 ms':>8} {'cpu ms':>8} {'ours/theirs':>12}")
    for name, rounds in scores.items():
        rates = [score.rate for score in rounds]
        middle, low, high = ratio(scores[ours], rounds)
        against = "" if name == ours else f"{middle:12.2f} ({low:.2f}-{high:.2f})"
        errors = sum(score.errors for score in rounds)
        print(
            f"{name:20} {statistics.median(rates):8.0f} {f'({min(rates):.0f}-{max(rates):.0f})':>15}"
            f" {statistics.median(s.p50 for s in rounds):8.2f} {statistics.median(s.p99 for s in rounds):8.2f}"
            f" {statistics.median(s.cpu_root + s.cpu_children for s in rounds):8.3f} {against}"
            + (f"  {errors} errors" if errors else "")
        )


def fsync_ms(directory: Path) -> float:
    """What one durable write costs on the disk that the ledger is on."""
    times = []
    with (directory / "fsync").open("ab", buffering=0) as file:
        for _ in range(100):
            file.write(b"x" * 4096)
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - began)
    return statistics.median(times) * 1000


if __name__ == "__main__":
    main()
