"""What the Verifier takes in a second, and how soon a refusal gets there: a Verifier as a process of its own."""

from __future__ import annotations

import asyncio
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp

from lictor.certs.domain import TrustDomain
from lictor.evidence.entry import ActionDraft
from lictor.evidence.ledger import Ledger
from lictor.evidence.recorder import PolicyInfo, Recorder
from lictor.evidence.sqlite_store import SqliteStore
from lictor.formats.keys import KeySigner
from lictor.proxy import loop
from lictor.proxy.config import Config, load
from lictor.proxy.outside.reporting import Reporting

from ..end_to_end.world import free_port
from ..pushed import Pusher

DOMAIN = "bench.test"
AGENT = f"spiffe://{DOMAIN}/agent/a"
AT_ONCE = 256
FEW, MANY, BETS = 4 * AT_ONCE, 40 * AT_ONCE, 80 * AT_ONCE
ANOMALIES = 400
POLICY = PolicyInfo("urn:p", "1.0.0", "d1", {"b": "high"})
SAID = [{"policy_id": "urn:p", "version": "1.0.0", "binding": "d1", "behavior_id": "b", "result": "fail"}]


def measure(directory: Path) -> dict[str, float]:
    """All figures of this module; everything is made in `directory`."""
    domain = TrustDomain.create(directory / "verifier-trust", DOMAIN)
    for name in ("one", "two"):
        domain.add_monitor(name)
    with _verifier(directory, domain) as (url, pid):
        rate, grown = loop.run(_push(url, pid, domain))
        late = sorted(loop.run(_anomalies(directory, domain, url)))
    p50, p99 = late[len(late) // 2], late[int(len(late) * 0.99)]
    print(f"verifier: {rate:.0f} BETs/s; anomalies p50 {p50:.1f} ms, p99 {p99:.1f} ms; its memory after")
    print("  " + ", ".join(f"{count} BETs {megabytes:.1f} MB" for count, megabytes in grown.items()))
    flat = grown[MANY] / grown[FEW]
    return {"verifier_bets_per_s": rate, "anomaly_p99_ms": p99, "verifier_memory_10k_vs_1k": flat}


@contextmanager
def _verifier(directory: Path, domain: TrustDomain) -> Iterator[tuple[str, int]]:
    """Its URL and its process id."""
    domain.add_verifier("v")
    folder, port = directory / "verifier", free_port()
    folder.mkdir()
    settings = f'name = "v"\nlisten = "127.0.0.1:{port}"\ntrust = "{domain.path}"\nregister = "register.sqlite"\n'
    (folder / "verifier.toml").write_text(settings)
    command = [sys.executable, "-m", "lictor", "verifier", "up", "-c", str(folder / "verifier.toml")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert "listens" in process.stdout.readline()
        yield f"https://127.0.0.1:{port}", process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


async def _push(url: str, pid: int, domain: TrustDomain) -> tuple[float, dict[int, float]]:
    """BETs a second over one connection, a request after the other; the Verifier's memory (MB) after so many."""
    files = domain.monitor("one")
    pusher = Pusher(files, AGENT, step=0.001)
    batches = [[pusher.bet() for _ in range(AT_ONCE)] for _ in range(BETS // AT_ONCE)]
    context = ssl.create_default_context(cafile=str(domain.identity_ca))
    context.load_cert_chain(files.cert, files.key)
    memory: dict[int, float] = {}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:

        async def send(tokens: list[str]) -> None:
            async with session.post(f"{url}/evidence", json={"keys": [pusher.jwk], "bets": tokens}) as answer:
                verdicts = (await answer.json())["verdicts"]
                assert all(verdict["accepted"] for verdict in verdicts), verdicts[0]

        for number, tokens in enumerate(batches, 1):
            if number == FEW // AT_ONCE + 1:
                began = time.perf_counter()
            await send(tokens)
            if number * AT_ONCE in (FEW, MANY, BETS):
                memory[number * AT_ONCE] = _resident(pid)
        took = time.perf_counter() - began
    return (BETS - FEW) / took, memory


def _resident(pid: int) -> float:
    """MB."""
    fields = Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()
    return int(fields[0]) / 1024


class _Watched(Reporting):
    """Says when the Verifier has answered."""

    def watch(self) -> None:
        self.answered = asyncio.Event()

    async def _push(self, tokens: list[str]) -> list[dict[str, object]]:
        verdicts = await super()._push(tokens)
        self.answered.set()
        return verdicts


async def _anomalies(directory: Path, domain: TrustDomain, url: str) -> list[float]:
    """Milliseconds from the decision on a refused action to the Verifier's answer, one at a time."""
    config = _config(directory, domain, url)
    signer = KeySigner.from_file(config.monitor_dir / "evidence.key")
    store = SqliteStore(config.ledger.path)
    ledger = Ledger.open(store, f"{DOMAIN}/monitor/two", signer)
    jwk = Pusher(domain.monitor("two"), AGENT).jwk
    ledger.put_document("key", jwk["kid"], jwk)
    audience = (f"spiffe://{DOMAIN}/verifier",)
    monitor = config.monitor.spiffe_id
    recorder = Recorder(ledger, signer, monitor, lambda _: (POLICY,), audience, 3600.0, stored=store)
    assert config.verifier is not None
    reporting = _Watched(config, config.verifier, ledger)
    reporting.watch()
    reporting.start()
    late = []
    for number in range(ANOMALIES + 20):
        reporting.answered.clear()
        target = f"https://evil.test/{number}"
        refused = ActionDraft(AGENT, "http_request", target, {}, "deny", "not_in_allowlist", SAID)
        began = time.perf_counter()
        await recorder.record_action(refused)
        await reporting.answered.wait()
        late.append((time.perf_counter() - began) * 1000)
    await recorder.close()
    await reporting.stop()
    await ledger.close()
    return late[20:]


def _config(directory: Path, domain: TrustDomain, url: str) -> Config:
    path = directory / "reporting.toml"
    path.write_text(
        f'[monitor]\nname = "two"\n[listen]\negress = "127.0.0.1:1"\n[identity]\ntrust = "{domain.path}"\n'
        f'[bindings]\ndirectory = "."\n[ledger]\npath = "reporting.db"\n'
        f'[verifier]\nurl = "{url}"\nname = "{domain.verifier("v").spiffe_id}"\n'
    )
    return load(path)
