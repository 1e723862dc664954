"""A worker: one mitmproxy engine in its own process, with our addons. It holds no evidence key.

Started by the control process with the configuration's path and its end of the channel. It takes bindings and the log's
salt from the control process, checked there; when the control process is gone it refuses everything and exits.
"""

from __future__ import annotations

import asyncio
import datetime
import json
import logging
import signal
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..addons.answers import Answers
from ..addons.connections import Connections
from ..addons.enforce import Enforce, Settings
from ..addons.exchange import permitted
from ..addons.guard import Guard
from ..addons.identify import Identify
from ..addons.ingress import Ingress, IngressSettings
from ..addons.open_exchanges import REVOKED, OpenExchanges
from ..addons.outcome import Outcome
from ..addons.places import Places, Resolver, own_addresses
from ..addons.tool_watch import ToolWatch
from ..addons.tunnel import Tunnels
from ..addons.usage import Usage
from ..addons.websocket import WebSocket
from ..bindings.model import Binding
from ..bindings.policy import QUARANTINED, Policy
from ..bindings.schema import load_binding
from ..bindings.subjects import for_agents_of
from ..bindings.target import Target
from ..certs.contexts import listener_context
from ..engine import permit, request_reader, response_reader
from ..engine.engine import Engine, EngineOptions, Listener
from ..engine.patience import TimeLimits
from ..engine.upstream_tls import UpstreamIdentity, UpstreamLookup
from ..formats import base64url
from ..formats.errors import UsageError
from ..formats.plain import log_to_stderr
from . import loop
from .channel import ControlClient
from .config import Config, load
from .federated import Federation
from .known_keys import KnownKeys

log = logging.getLogger(__name__)

REVOCATION_S = 0.5
LAST_REFUSAL_S = 0.3
"""How long the connections of an agent in quarantine stay open where nothing is let out on them: it is told why."""
LAST_WORDS_S = 1.0
"""How long a worker still answers with refusals after the control process is gone."""


class Worker:
    """The data plane of one process."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._hello: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._control = ControlClient(
            timeout=config.limits.receipt_timeout_s,
            limit=config.limits.waiting_actions,
            on_push=self._pushed,
            on_lost=self._orphaned,
        )
        self._engine: Engine | None = None
        self._quarantined: frozenset[str] = frozenset()

    async def run(self, channel: socket.socket) -> None:
        """Serve until told to stop or left alone by the control process."""
        await self._control.connect(channel)
        hello = await self._hello
        if hello["extensions"] != [extension.to_json() for extension in self._config.extensions]:
            raise UsageError("the extensions are not those that the monitor started with: start it again")
        with TemporaryDirectory(prefix="lictor-") as confdir:
            engine = self._engine = self._make_engine(hello, Path(confdir))
            stopping = asyncio.Event()
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
            tasks = [
                asyncio.create_task(self._end(engine, stopping)),
                asyncio.create_task(self._say_ready(engine)),
                asyncio.create_task(self._watch_revocation(engine)),
            ]
            await engine.run()
            for task in tasks:
                task.cancel()
        # One more turn of the loop, so that the outcomes of what was cut off just now leave too.
        await asyncio.sleep(0.05)

    async def _say_ready(self, engine: Engine) -> None:
        await engine.ready.wait()
        self._control.tell("ready", None)

    async def _end(self, engine: Engine, stopping: asyncio.Event) -> None:
        """When told to stop: no new connections, and a grace time for what is under way."""
        await stopping.wait()
        engine.stop_listening()
        deadline = time.monotonic() + self._config.limits.shutdown_s
        while self._control.busy and time.monotonic() < deadline:  # noqa: ASYNC110 (it changes with every request)
            await asyncio.sleep(0.02)
        engine.shutdown()

    async def _watch_revocation(self, engine: Engine) -> None:
        """A revoked certificate, or a revocation list that cannot be believed, ends connections that are open."""
        while True:
            await asyncio.sleep(REVOCATION_S)
            if self._federation.look():
                engine.look_at_servers()
            self._open.end(self._identify.no_longer_good(), REVOKED)

    def _pushed(self, payload: dict[str, Any]) -> None:
        """What the control process says unasked: first everything, later what changed."""
        if "ended" in payload:
            self._open.end_actions(**payload)
            return
        if "tools" in payload:
            self._watch = ToolWatch(**payload["tools"], tell=self._say_listed)
            if "bindings" not in payload:
                return
        if "bindings" in payload:
            bindings = for_agents_of(self._config.monitor.trust_domain, _bindings(payload["bindings"]))
            policy = Policy(bindings, self._config.catalog())
            self._policy = policy.with_quarantined(self._quarantined)
        if "quarantined" in payload:
            before, self._quarantined = self._quarantined, frozenset(payload["quarantined"])
            self._policy = self._policy.with_quarantined(self._quarantined)
            asyncio.get_running_loop().call_later(LAST_REFUSAL_S, self._cut_off, self._quarantined - before)
        if not self._hello.done():
            self._hello.set_result(payload)
        if self._engine is not None:
            self._open.judge_again()

    def _cut_off(self, agents: frozenset[str]) -> None:
        """The connections of those that are still in quarantine end."""
        if self._engine is not None:
            self._open.end(self._identify.connections_of(agents & self._quarantined), QUARANTINED)

    def _say_listed(self, urn: str, tools: Mapping[str, str]) -> None:
        self._control.tell("tools", {"urn": urn, "tools": tools})

    def _orphaned(self) -> None:
        log.error("the control process is gone: refusing everything, then exiting")
        if self._engine is None:
            sys.exit(3)
        asyncio.get_running_loop().call_later(LAST_WORDS_S, self._engine.shutdown)

    def _make_engine(self, hello: dict[str, Any], confdir: Path) -> Engine:
        config = self._config
        trust = config.identity.trust
        (confdir / "mitmproxy-ca.pem").symlink_to(config.monitor_dir / "interception.pem")
        federation = self._federation = Federation(config, confdir)
        salt = base64url.decode(hello["salt"])
        permit.install(permitted, config.limits.judged_body_bytes)
        request_reader.install()
        response_reader.install()
        identify = self._identify = Identify(
            lambda client: engine.peer_certificate(client),
            federation.identities,
            lambda: datetime.datetime.now(datetime.UTC),
        )
        guard = Guard()
        places = Places(
            lambda: self._policy.catalog,
            own_addresses(config.listen.named().values()),
            Resolver(),
            config.limits.dns_timeout_s,
            _fixed_upstreams(config),
        )
        open_exchanges = self._open = OpenExchanges(
            lambda: self._policy, lambda client: engine.cut(client), self._control.withdraw
        )
        settings = Settings(config.monitor.spiffe_id, config.limits.judged_body_bytes, salt)
        outcome = Outcome(self._control, open_exchanges)
        addons: list[object] = [
            identify,
            Connections(
                identify,
                config.monitor.trust_domain,
                config.limits.connections,
                config.limits.connections_per_agent,
            ),
            open_exchanges,
            guard,
            places,
            Enforce(
                settings,
                lambda: self._policy,
                identify,
                guard,
                self._control,
                open_exchanges,
                places,
                lambda: self._watch,
            ),
            Answers(settings, lambda: self._policy, self._control, lambda: self._watch),
            Usage(config.limits.judged_body_bytes),
            outcome,
            WebSocket(lambda: self._policy, identify, self._control, outcome, open_exchanges),
            Tunnels(lambda: self._policy, identify, self._control, outcome, open_exchanges),
        ]
        if config.ingress is not None and config.listen.ingress is not None:
            fetched = config.listen.evidence is not None
            ingress = IngressSettings(config.ingress.agent, config.ingress.urn, config.listen.ingress, fetched)
            resolve = KnownKeys(trust, federation.ca.read_bytes(), federation.partners).resolve
            addons.append(
                Ingress(settings, ingress, lambda: self._policy, identify, resolve, self._control, open_exchanges)
            )
        engine = Engine(
            _listeners(config, federation),
            addons,
            EngineOptions(
                confdir,
                config.interception.upstream_ca,
                _upstream(config, federation),
                websocket_message_bytes=config.limits.websocket_message_bytes,
                times=_times(config),
            ),
        )
        return engine


def _bindings(documents: list[dict[str, Any]]) -> tuple[Binding, ...]:
    return tuple(load_binding(json.dumps(d).encode(), "the control process") for d in documents)


def _listeners(config: Config, federation: Federation) -> list[Listener]:
    """Partners' monitors are let in where they delegate, not where agents are served."""
    files = config.monitor_dir / "cert.pem", config.monitor_dir / "key.pem", federation.ca
    listeners = [Listener(*config.listen.egress, "regular", listener_context(*files))]
    if config.listen.ingress is not None and config.ingress is not None:
        context = listener_context(*files)
        federation.welcome(context)
        listeners.append(Listener(*config.listen.ingress, f"reverse:{config.ingress.upstream}", context))
    return listeners


def _times(config: Config) -> TimeLimits:
    limits = config.limits
    return TimeLimits(
        head=limits.head_timeout_s,
        body=limits.body_timeout_s,
        idle=limits.idle_timeout_s,
        stream=limits.stream_idle_timeout_s,
        answer=limits.upstream_timeout_s,
    )


def _fixed_upstreams(config: Config) -> frozenset[tuple[str, int]]:
    if config.ingress is None:
        return frozenset()
    host, _, port = config.ingress.upstream.removeprefix("http://").rpartition(":")
    return frozenset({(host.strip("[]"), int(port))})


def _upstream(config: Config, federation: Federation) -> UpstreamLookup:
    """Client certificate and CA per authority. An agent behind a monitor is met as this monitor, in its own domain."""
    catalog = config.catalog()
    identities = {target.urn: _upstream_identity(config, target, federation) for target in config.targets}

    def find(host: str, port: int) -> UpstreamIdentity | None:
        found = {identities[target.urn] for target in catalog.at(host, port)}
        if len(found) > 1:
            raise UsageError(
                f"the targets on {host}:{port} name different ca, client_cert or client_key; one connection has one "
                "identity, so they must be the same"
            )
        return next(iter(found), None)

    return find


def _upstream_identity(config: Config, target: Target, federation: Federation) -> UpstreamIdentity:
    if target.kind != "agent" or target.agent_id is None:
        return UpstreamIdentity(target.ca, target.client_cert, target.client_key)
    ca, accept = federation.server(target)
    return UpstreamIdentity(
        ca,
        target.client_cert or config.monitor_dir / "cert.pem",
        target.client_key or config.monitor_dir / "key.pem",
        accept,
    )


def main() -> None:
    """`python -m lictor.proxy.worker CONFIG FD`: what the control process starts."""
    log_to_stderr("lictor worker: %(message)s")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    channel = socket.socket(fileno=int(sys.argv[2]))

    async def serve() -> None:
        await Worker(load(Path(sys.argv[1]))).run(channel)

    try:
        loop.run(serve())
    except UsageError as e:
        sys.exit(f"lictor worker: {e}")


if __name__ == "__main__":
    main()
