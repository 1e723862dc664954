"""The control process: owns the ledger and the evidence key, starts the workers, answers them, and outlives them.

It parses no agent traffic: what arrives from workers are drafts of entries, already judged.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

from ..bindings.succession import Past, Succession
from ..certs.domain import TrustDomain
from ..evidence import durability, extensions
from ..evidence.demand import Demands
from ..evidence.issuer import Issuer
from ..evidence.ledger import Ledger
from ..evidence.recorder import Recorder
from ..evidence.retention import Retention
from ..evidence.sqlite_store import SqliteReader, SqliteStore
from ..formats import base64url
from ..formats.errors import LictorError, UsageError
from ..formats.jws import Signer
from ..formats.keys import read_closed
from .channel import Frames
from .config import Config
from .deciding import Deciding
from .description import SelfDescription
from .desk import Desk
from .evidence_key import EvidenceKey
from .installed import package_changed
from .orders.catalogue import demanded, erasing
from .outside.apart import Apart
from .outside.transparency import Transparency
from .policies import policies_for
from .ports import wait_until_free
from .reload import BindingsOnDisk
from .state import State
from .tools import Tools

log = logging.getLogger(__name__)

READY_TIMEOUT_S = 30.0
RESPAWN_S = 1.0
RESPAWNS = 5
TICK_S = 0.5
FRESHEN_EVERY = 7200  # ticks: an hour


@dataclass(slots=True)
class _Worker:
    """One worker process and our end of its channel."""

    number: int
    process: asyncio.subprocess.Process
    frames: Frames
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    drained: asyncio.Event = field(default_factory=asyncio.Event)


class ControlProcess:
    """The running monitor. `run` returns when it was told to stop; everything is on disk then."""

    def __init__(self, config: Config, announce: Callable[[str], None]) -> None:
        self._config = config
        self._announce = announce
        self._stopping = asyncio.Event()
        self._workers: dict[int, _Worker] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._bindings = BindingsOnDisk(config.bindings)
        self._in_force = self._bindings.current
        self._policies = policies_for(self._in_force)
        config.catalog()

    def stop(self) -> None:
        """Ask `run` to end."""
        self._stopping.set()

    async def run(self) -> None:
        """Open the ledger, serve until stopped, close the windows. Raises UsageError or LictorError at start."""
        config = self._config
        for name, address in config.listen.named().items():
            await wait_until_free(name, address)
        freshen(TrustDomain.open(config.identity.trust), config.monitor.name)
        for path in (config.monitor_dir / "interception.pem", *(t.client_key for t in config.targets if t.client_key)):
            read_closed(path)
        signer = EvidenceKey(config)
        ledger = self._open_ledger(signer)
        await ledger.commit()  # what is read back from here on is all there is
        self._state = State(self._in_force, self._store, ledger.size, ledger.now())
        demands = self._demands(ledger, signer)
        deciding = self._deciding = Deciding(
            config, ledger, self._store, self._state, self._in_force, self._tell_workers
        )
        self._recorder = Recorder(
            ledger,
            signer,
            config.monitor.spiffe_id,
            lambda agent_id: self._policies(agent_id),
            config.evidence.audience,
            config.evidence.interval_s,
            config.evidence.jitter,
            stored=self._store,
            state=deciding.authority,
            holds=deciding.holds,
        )
        apart = Apart(config, lambda: self._in_force)
        self._desk = Desk(self._recorder, apart)
        transparency = Transparency(config, ledger, signer)
        retention = Retention(ledger, self._store, config.monitor.spiffe_id, self._recorder.needed_from)
        await retention.resume()
        ticker = asyncio.create_task(self._tick(ledger, signer))
        keeper = asyncio.create_task(retention.run(config.evidence.retention_days))
        try:
            await transparency.start()
            await deciding.start(self._recorder.delegations, demanded(demands), erasing(retention))
            await apart.start()
            await self._serve()
        finally:
            ticker.cancel()
            keeper.cancel()
            await deciding.stop()
            await self._end_workers()
            await apart.stop()
            try:
                await self._recorder.close()
                await transparency.stop()
            finally:
                await ledger.close()

    def _open_ledger(self, signer: EvidenceKey) -> Ledger:
        config = self._config
        folder = config.ledger.path.parent
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as e:
            raise UsageError(f"ledger.path: the directory {folder} cannot be made: {e.strerror}") from None
        store = self._store = SqliteStore(config.ledger.path, config.ledger.durability)
        self._salt = log_salt(store)
        self._bindings.follow(Succession(Past.of(orjson.loads(row.data), row.id) for row in store.documents("binding")))
        ledger = Ledger.open(store, f"{config.monitor.trust_domain}/monitor/{config.monitor.name}", signer)
        self._tools = Tools(config, store, ledger.put_meta)
        signer.enter(ledger, store, config.monitor.spiffe_id)
        durability.announce(ledger, store, config.monitor.spiffe_id)
        extensions.announce(ledger, store, config.monitor.spiffe_id, self._extensions())
        self._keep_bindings(ledger)
        self._description = SelfDescription(config, signer)
        self._description.enter(ledger, self._in_force)
        return ledger

    def _demands(self, ledger: Ledger, signer: Signer) -> Demands:
        config = self._config
        issuer = Issuer(ledger, signer, config.monitor.spiffe_id, config.evidence.audience)
        return Demands(ledger, issuer, lambda agent: self._policies(agent), lambda: SqliteReader(config.ledger.path))

    def _keep_bindings(self, ledger: Ledger) -> None:
        for binding in self._in_force:
            ledger.put_document("binding", binding.digest, dict(binding.document))

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        started = await asyncio.gather(*(self._start(n) for n in range(self._config.monitor.workers)))
        if not all(started):
            raise LictorError("a worker did not start; its message is above")
        self._say_ready()
        await self._stopping.wait()

    def _say_ready(self) -> None:
        config = self._config
        host, port = config.listen.egress
        self._announce(f"{config.monitor.spiffe_id} listens for agents on {host}:{port}")
        if config.listen.ingress is not None and config.ingress is not None:
            host, port = config.listen.ingress
            self._announce(f"{config.ingress.agent} is served on {host}:{port}")
        if config.listen.api is not None:
            host, port = config.listen.api
            self._announce(f"the log is served on {host}:{port}")
        if config.listen.evidence is not None:
            host, port = config.listen.evidence
            self._announce(f"evidence is brought to and fetched from {host}:{port}")
        if config.listen.orders is not None:
            host, port = config.listen.orders
            self._announce(f"orders are taken on {host}:{port}")

    async def _tick(self, ledger: Ledger, key: EvidenceKey) -> None:
        domain = TrustDomain.open(self._config.identity.trust)
        problem = ""
        for second in itertools.count():
            await asyncio.sleep(TICK_S)
            try:
                self._deciding.tick()
                await self._recorder.tick()
                if self._bindings.poll():
                    await self._reload(ledger)
                if self._tools.poll():
                    self._tell_tools()
                if await key.poll(ledger, self._config.monitor.spiffe_id):
                    self._description.enter(ledger, self._in_force)
                    self._announce(f"evidence is signed with the key {key.kid}")
                if self._description.was_erased(self._store.erased()):
                    self._description.enter(ledger, self._in_force)
                if second % FRESHEN_EVERY == 0 and freshen(domain, self._config.monitor.name):
                    self._restart_workers()
                problem = ""
            except LictorError as e:
                if str(e) != problem:
                    log.error("%s", e)
                problem = str(e)
            except Exception:
                # Evidence and reloads must not end silently with one surprise.
                log.exception("upkeep failed and goes on")

    async def _reload(self, ledger: Ledger) -> None:
        """Put other bindings in force: in one turn in the memories and for the workers, then in evidence."""
        found = self._bindings.current
        put_in_force = await self._state.change(found, ledger, lambda: SqliteReader(self._config.ledger.path))
        put_in_force()
        self._in_force = found
        self._deciding.authority.put_in_force(found)
        self._policies = policies_for(found)
        self._tell_workers({"bindings": self._documents()})
        self._keep_bindings(ledger)
        self._description.enter(ledger, found)
        await self._recorder.reload()
        versions = ", ".join(f"{b.policy_id} {b.version}" for b in found) or "none: all is denied"
        self._announce(f"bindings in force: {versions}")

    def _tell_workers(self, what: dict[str, Any]) -> None:
        for worker in self._workers.values():
            worker.frames.send([0, True, what])

    def _restart_workers(self) -> None:
        """They read the interception intermediate at their start only."""
        for worker in self._workers.values():
            if worker.process.returncode is None:
                worker.process.terminate()

    async def _start(self, number: int) -> bool:
        """Start one worker and wait until it listens; False if it does not."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "lictor.proxy.worker",
                str(self._config.path),
                str(theirs.fileno()),
                pass_fds=[theirs.fileno()],
                stdin=asyncio.subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C reaches the control process, which ends its workers in order
            )
        frames = Frames(lambda frame: self._received(worker, frame), lambda: worker.drained.set())
        worker = _Worker(number, process, frames)
        await asyncio.get_running_loop().create_connection(lambda: frames, sock=ours)
        frames.send([0, True, self._hello()])
        self._workers[number] = worker
        self._spawn(self._watch(worker))
        waits = {asyncio.ensure_future(worker.ready.wait()), asyncio.ensure_future(process.wait())}
        _, late = await asyncio.wait(waits, timeout=READY_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
        for one in late:
            one.cancel()
        return worker.ready.is_set()

    def _extensions(self) -> list[dict[str, str]]:
        return [extension.to_json() for extension in self._config.extensions]

    def _hello(self) -> dict[str, Any]:
        return {
            "salt": base64url.encode(self._salt),
            "bindings": self._documents(),
            "quarantined": self._deciding.quarantine.agents(),
            "tools": self._tools.for_workers(),
            "extensions": self._extensions(),
        }

    def _tell_tools(self) -> None:
        for worker in self._workers.values():
            worker.frames.send([0, True, {"tools": self._tools.for_workers()}])

    def _documents(self) -> list[dict[str, Any]]:
        return [dict(binding.document) for binding in self._in_force]

    async def _watch(self, worker: _Worker) -> None:
        """What a worker that ended had not yet told is unknown from then on; start it again if it ended by itself."""
        code = await worker.process.wait()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(worker.drained.wait(), 2)
        try:
            await self._recorder.lost(worker)
        except LictorError as e:
            log.error("not recorded: %s", e)
        if self._stopping.is_set() or not worker.ready.is_set():
            return
        if await asyncio.to_thread(package_changed):
            log.error(
                "worker %d ended, and other files of lictor are there now than were started: stopping", worker.number
            )
            self.stop()
            return
        log.error("worker %d ended with code %s and is started again", worker.number, code)
        for _ in range(RESPAWNS):
            await asyncio.sleep(RESPAWN_S)
            if self._stopping.is_set() or await self._start(worker.number):
                return
        log.error("worker %d does not start again; stopping", worker.number)
        self.stop()

    async def _end_workers(self) -> None:
        """SIGTERM, a grace time, SIGKILL; then what they said last is read."""
        self._stopping.set()
        self._deciding.deny_what_waits()
        ends = []
        for worker in self._workers.values():
            if worker.process.returncode is None:
                worker.process.terminate()
                ends.append(asyncio.ensure_future(worker.process.wait()))
        if ends:
            _, late = await asyncio.wait(ends, timeout=self._config.limits.shutdown_s + 2)
            for worker in self._workers.values():
                if late and worker.process.returncode is None:
                    with contextlib.suppress(ProcessLookupError):
                        worker.process.kill()
            if late:
                await asyncio.wait(late)
        for worker in self._workers.values():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(worker.drained.wait(), 2)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5)
        await self._desk.settle(5)

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _received(self, worker: _Worker, frame: list[Any]) -> None:
        if frame[1] == "ready":
            worker.ready.set()
        elif frame[1] == "tools":
            if self._tools.take(**frame[2]):
                self._tell_tools()
        else:
            self._desk.take(frame, worker.frames, worker)


def freshen(domain: TrustDomain, monitor: str) -> bool:
    """Renew what is due: the date of the revocation list, and the interception intermediate (then True)."""
    if domain.crl_due():
        domain.renew_crl()
    if not domain.interception_due(monitor):
        return False
    domain.renew_interception(monitor)
    return True


def log_salt(store: SqliteStore) -> bytes:
    """The secret that keys the digests of bodies in this log, made once."""
    found = store.meta("salt")
    if found is None:
        found = base64url.encode(os.urandom(32))
        store.put_meta("salt", found)
    return base64url.decode(found)
