"""Logs as monitors serve them over TLS: honest, forked, cut, slow, silent, and somebody else's."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from end_to_end.world import free_port
from pushed import Pusher
from tiled import Tiled

from lictor.certs.contexts import listener_context
from lictor.certs.domain import TrustDomain
from lictor.evidence.checkpoint import CheckpointSigner
from lictor.evidence.cosignature import Cosigner
from lictor.evidence.tiles import Tile
from lictor.evidence.windows import PolicyInfo, Window
from lictor.formats import base64url
from lictor.formats.canonical import canonical
from lictor.formats.errors import LictorError
from lictor.formats.keys import KeySigner
from lictor.formats.signed_note import parse_note
from lictor.verifier.bets import parse_bet
from lictor.verifier.service import log_client, log_watch
from lictor.verifier.service.appraisal import References
from lictor.verifier.service.config import VerifierConfig, load
from lictor.verifier.service.consistency import Checked, LogState
from lictor.verifier.service.log_watch import LogWatch
from lictor.verifier.service.register import Register
from lictor.verifier.service.tiles import Missing, Tree, Unchecked

NAME = "spiffe://w.test/monitor/one"
ORIGIN = "w.test/monitor/one"


@pytest.fixture(scope="module")
def domain(tmp_path_factory: pytest.TempPathFactory) -> TrustDomain:
    made = TrustDomain.create(tmp_path_factory.mktemp("watch") / "trust", "w.test")
    made.add_verifier("v")
    for name in ("one", "two"):
        made.add_monitor(name)
    return made


class LogServer:
    """Serves `log` up to `size` under the monitor's key; `who` shows the certificate."""

    def __init__(self, domain: TrustDomain, who: str = "one") -> None:
        self.pusher = Pusher(domain.monitor("one"), "spiffe://w.test/agent/a")
        self.signer = CheckpointSigner(ORIGIN, self.pusher.signer)
        self.log, self.size = Tiled(300), 300
        self.more = ""
        self.hold = asyncio.Event()
        self.hold.set()
        self.notes: list[str] = []
        self.port = free_port()
        app = web.Application()
        app.router.add_get("/checkpoint", self._checkpoint)
        app.router.add_get("/tile/{path:.+}", self._tile)
        app.router.add_get("/jwks.json", self._keys)
        self.runner = web.AppRunner(app, shutdown_timeout=0.1)
        files = domain.monitor(who)
        self.context = listener_context(files.cert, files.key, domain.identity_ca)

    async def start(self) -> None:
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", self.port, ssl_context=self.context).start()

    def note(self) -> str:
        return self.notes[-1] if self.notes else self.signer.sign(self.size, self.log.tree(self.size).root)

    async def _checkpoint(self, request: web.Request) -> web.StreamResponse:
        await self.hold.wait()
        return web.Response(text=self.note() + self.more)

    async def _tile(self, request: web.Request) -> web.StreamResponse:
        try:
            return web.Response(body=self.log.tile(Tile.parse(request.match_info["path"])))
        except Missing as e:
            raise web.HTTPNotFound(text=str(e)) from None

    async def _keys(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"keys": [self.pusher.jwk]})

    def bet(self, size: int) -> str:
        root = base64url.encode(self.log.tree(size).root)
        return self.pusher.bet(ext={"checkpoint_size": size, "checkpoint_root": root})


Serve = Callable[..., Awaitable[LogServer]]


@pytest.fixture
async def serve(domain: TrustDomain) -> AsyncIterator[Serve]:
    made = []

    async def start(who: str = "one") -> LogServer:
        made.append(LogServer(domain, who))
        await made[-1].start()
        return made[-1]

    yield start
    for one in made:
        one.hold.set()
        await one.runner.cleanup()


def configuration(folder: Path, domain: TrustDomain, port: int, more: str = "") -> VerifierConfig:
    path = folder / "verifier.toml"
    path.write_text(
        f'name = "v"\nlisten = "127.0.0.1:1"\ntrust = "{domain.path}"\nregister = "r.db"\n'
        f'[[monitor]]\nname = "{NAME}"\nlog = "https://127.0.0.1:{port}"\n{more}'
    )
    return load(path)


class Watching:
    """A watch on a register of its own, whose rounds are made by hand."""

    def __init__(self, config: VerifierConfig) -> None:
        self.register = Register(config.register)
        self.found: list[Checked] = []
        self.watch = LogWatch(config, self._state, self._take)
        (self.log,) = self.watch._logs

    async def _state(self, monitor: str) -> LogState:
        return self.register.logs.state(monitor, References())

    async def _take(self, monitor: str, checked: Checked) -> None:
        self.found.append(checked)
        self.register.logs.take(monitor, checked, time.time())

    def push(self, *tokens: str) -> list[str]:
        return [text for one in self.register.add(map(parse_bet, tokens), time.time()) for text in one.contradictions]

    async def round(self) -> Checked:
        await self.watch.round(self.log)
        return self.found[-1]

    async def problem(self) -> str:
        with pytest.raises(LictorError) as caught:
            await self.watch.round(self.log)
        return str(caught.value)


@pytest.fixture
async def watching(tmp_path: Path, domain: TrustDomain) -> AsyncIterator[Callable[..., Watching]]:
    made: list[Watching] = []

    def start(server: LogServer, more: str = "") -> Watching:
        made.append(Watching(configuration(tmp_path, domain, server.port, more)))
        return made[-1]

    yield start
    for one in made:
        await one.watch.stop()
        one.register.close()


Start = Callable[..., Watching]


async def test_what_bets_rest_on_is_seen_to_be_in_the_log(serve: Serve, watching: Start) -> None:
    server = await serve()
    one = watching(server)
    assert one.push(server.bet(10), server.bet(290), server.bet(300)) == []
    assert await one.round() == Checked(server.log.tree(), (10, 290, 300))
    server.log, server.size = Tiled(1000), 1000
    assert await one.round() == Checked(server.log.tree())
    assert one.watch.health() == [{"monitor": NAME, "size": 1000, "judged": 0, "problem": ""}]


async def test_a_log_that_forks_for_others(serve: Serve, watching: Start) -> None:
    """Its BETs rest on one tree, and what it serves is another; both are signed."""
    server = await serve()
    one = watching(server)
    one.push(server.bet(250))
    server.log = Tiled(300, fork=200)
    found = await one.round()
    assert ([what for what, _ in found.against], found.refuted) == (["two_histories"], (250,))
    assert not (await one.round()).against, "it is held against it once"


async def test_a_log_that_was_rewritten_meanwhile(serve: Serve, watching: Start) -> None:
    server = await serve()
    one = watching(server)
    await one.round()
    server.log, server.size = Tiled(400, fork=299), 400
    assert [what for what, _ in (await one.round()).against] == ["two_histories"]


async def test_a_log_that_was_cut(serve: Serve, watching: Start) -> None:
    server = await serve()
    one = watching(server)
    one.push(server.bet(300))
    await one.round()
    server.log, server.size = Tiled(200), 200
    assert [what for what, _ in (await one.round()).against] == ["log_shrank"]


async def test_a_checkpoint_that_lags_is_no_log_that_was_cut(serve: Serve, watching: Start) -> None:
    """What witnesses have signed may be shorter than what was served while none had."""
    server = await serve()
    one = watching(server)
    one.push(server.bet(300))
    await one.round()
    server.size = 200
    assert await one.round() == Checked(server.log.tree(300))


async def test_witnesses_are_counted(serve: Serve, watching: Start, tmp_path: Path) -> None:
    cosigners = [Cosigner(f"w{n}", KeySigner.of(Ed25519PrivateKey.generate())) for n in range(3)]
    (tmp_path / "keys").write_text("".join(f"{one.witness}\n" for one in cosigners[:2]))
    server = await serve()
    one = watching(server, '[logs]\nwitnesses = ["keys"]\n')
    text = parse_note(server.note()).text
    lines = [cosigner.sign(text, 1) for cosigner in cosigners]
    for more, witnessed in [(lines[:1], None), (lines[::2], None), (lines, 300)]:
        server.more = "".join(more)
        assert (await one.round()).witnessed == witnessed
    server.more = lines[0].replace("w0", "w1")
    assert (await one.round()).witnessed is None, "a line under another key counts for nobody"
    forged = cosigners[0].sign("another text\n", 1)
    server.more = forged
    assert "the cosignature of w0 under the checkpoint is wrong" in await one.problem()


async def test_checkpoints_of_others_say_nothing(serve: Serve, watching: Start) -> None:
    server = await serve()
    one = watching(server)
    tree = Tree(300, server.log.tree().root)
    server.notes = [CheckpointSigner(ORIGIN, KeySigner.of(Ed25519PrivateKey.generate())).sign(tree.size, tree.root)]
    assert "its checkpoint cannot be relied on: no known key signed" in await one.problem()
    server.notes = [CheckpointSigner("w.test/monitor/two", server.pusher.signer).sign(tree.size, tree.root)]
    assert "cannot be relied on" in await one.problem()
    server.notes = ["x" * 70_000]
    assert "more than 65536 octets" in await one.problem()
    server.notes = []
    assert await one.round() == Checked(tree), "and then all is well again"


async def test_another_server_is_not_asked(serve: Serve, watching: Start) -> None:
    one = watching(await serve("two"))
    assert "the server is spiffe://w.test/monitor/two, expected" in await one.problem()


async def test_what_is_not_answered_in_time_is_left(
    serve: Serve, watching: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log that says nothing keeps its own thread only, and not for ever."""
    monkeypatch.setattr(log_watch, "READ_S", 0.2)
    monkeypatch.setattr(log_client, "ANSWER_S", 3600)
    server = await serve()
    one = watching(server)
    server.hold.clear()
    assert "it does not answer" in await one.problem()
    server.hold.set()
    monkeypatch.setattr(log_watch, "READ_S", 30)
    assert (await one.round()).newest.size == 300


def recorded(agent: str, began: float, count: int) -> list[bytes]:
    """Entries of an agent, one a second."""
    action = {
        "agent_id": agent,
        "action_type": "http_request",
        "action_target": "https://a.test/",
        "action_parameters": {},
    }
    said = {"policy_id": "urn:p", "version": "1.0.0", "binding": "d1", "behavior_id": "b", "result": "pass"}
    more = {"decision": "allow", "reason": "allowed", "behaviors": [said], "wid": "w", "node": "n", "lineage": "root"}
    return [canonical({**action, **more, "seq": n, "timestamp": began + n}) for n in range(count)]


@pytest.mark.parametrize("lie", ["", "an entry less", "another entry"])
async def test_a_window_is_judged_again_from_what_is_served(
    serve: Serve, watching: Start, monkeypatch: pytest.MonkeyPatch, lie: str
) -> None:
    server = await serve()
    began = time.time() - 900
    entries = recorded(server.pusher.agent, began, 600)
    window = Window(server.pusher.agent, PolicyInfo("urn:p", "", "d1", {}), began, 0, None)
    for seq, data in enumerate(entries[300:520], 300):
        if not (lie == "an entry less" and seq == 400):
            window.add(seq, data.replace(b"a.test", b"b.test") if lie and seq == 401 else data)
    server.log.hold(entries)
    server.size = 600
    one = watching(server)
    root = base64url.encode(server.log.tree().root)
    ext = {"first_seq": 300, "count": window.count, "checkpoint_size": 600, "checkpoint_root": root}
    times = {"start": began + 299.5, "end": began + 519.5}
    one.push(server.pusher.bet(ext=ext, bhv_window=times, bhv_evidence=window.evidence(), iat=int(time.time())))
    assert (await one.round()).judged == (), "of a log that was never looked at nothing is chosen"
    one.log.sampled = -log_watch.SAMPLE_S
    assert [what for what, _ in (await one.round()).judged] == (["other_entries"] if lie else [])
    assert one.watch.health()[0]["judged"] == 1
    asked = len(server.log.asked)
    assert (await one.round()).judged == ()
    assert len(server.log.asked) == asked, "not as often as the log is looked at"


async def test_what_is_found_of_a_log_counts_whatever_its_entries_do(
    serve: Serve, watching: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await serve()
    one = watching(server)
    one.push(server.bet(250))
    server.size = 280
    await one.round()
    monkeypatch.setattr(log_watch, "judge_window", lambda *_: 1 / 0)
    one.log.sampled = -log_watch.SAMPLE_S
    server.log, server.size = Tiled(300, fork=200), 300
    assert [what for what, _ in (await one.round()).against] == ["two_histories"]


@pytest.mark.parametrize("how", ["others", "too few", "none"])
async def test_entries_that_are_not_those_of_the_log_are_not_taken(serve: Serve, watching: Start, how: str) -> None:
    server = await serve()
    one = watching(server)
    tree = server.log.tree()
    client = one.log.client

    async def read() -> list[tuple[int, bytes]]:
        return await asyncio.to_thread(lambda: list(client.entries(tree, 250, 260)))

    assert await read() == [(n, b"%d 0" % n) for n in range(250, 260)]
    server.log.entries = {"others": Tiled(300, fork=255).entries, "too few": server.log.entries[:255], "none": []}[how]
    with pytest.raises(Unchecked, match="is not the one of its log" if how == "others" else "ends too early"):
        await read()


async def test_rounds_go_on_whatever_happens(
    serve: Serve, watching: Start, domain: TrustDomain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_watch, "ROUND_S", 0.02)
    server = await serve()
    one = watching(server)
    await server.runner.cleanup()
    one.watch.start()

    async def until(wanted: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 15
        while not wanted():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)

    await until(lambda: one.log.failures > 1)
    assert "does not answer" in json.dumps(one.watch.health())
    again = LogServer(domain)
    again.port = server.port
    await again.start()
    await until(lambda: one.log.size == 300)
    assert one.watch.health() == [{"monitor": NAME, "size": 300, "judged": 0, "problem": ""}]
    await one.watch.stop()
    await again.runner.cleanup()
