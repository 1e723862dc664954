"""What the monitor pushes to whom, whatever the Verifier answers: nothing lost, nothing sent to others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web
from end_to_end.world import free_port
from pushed import Pusher

from lictor.certs.contexts import listener_context
from lictor.certs.domain import TrustDomain
from lictor.evidence.ledger import Ledger
from lictor.evidence.sqlite_store import SqliteStore
from lictor.evidence.store import BetRow
from lictor.formats.errors import UsageError
from lictor.formats.keys import KeySigner
from lictor.proxy.config import Config, load
from lictor.proxy.outside import reporting
from lictor.proxy.outside.reporting import Reporting

Reply = Callable[[list[str]], Awaitable[web.Response] | web.Response]


@pytest.fixture(scope="module")
def domain(tmp_path_factory: pytest.TempPathFactory) -> TrustDomain:
    made = TrustDomain.create(tmp_path_factory.mktemp("reporting") / "trust", "r.test")
    made.add_monitor("one")
    made.add_verifier("v")
    return made


def accepted(tokens: list[str]) -> web.Response:
    return web.json_response({"verdicts": [{"accepted": True, "jti": t, "known": False} for t in tokens]})


class Scene:
    """A ledger, a Verifier that answers as told, and how the monitor takes it."""

    def __init__(self, folder: Path, domain: TrustDomain) -> None:
        self.folder, self.domain, self.port = folder, domain, free_port()
        self.reply: Reply = accepted
        self.pushed: list[list[str]] = []
        self.keys: list[Any] = []
        self.descriptions: list[str] = []
        self.reporting: Reporting | None = None
        self._bets = Pusher(domain.monitor("one"), "spiffe://r.test/agent/a")

    def config(self, name: str = "spiffe://r.test/verifier/v") -> Config:
        path = self.folder / "lictor.toml"
        path.write_text(
            f'[monitor]\nname = "one"\n[listen]\negress = "127.0.0.1:1"\n[identity]\ntrust = "{self.domain.path}"\n'
            f'[bindings]\ndirectory = "."\n[ledger]\npath = "l.db"\n'
            f'[verifier]\nurl = "https://127.0.0.1:{self.port}/"\nname = "{name}"\n'
        )
        return load(path)

    async def serve(self) -> None:
        async def answer(request: web.Request) -> web.Response:
            body = orjson.loads(await request.read())
            self.pushed.append(body["bets"])
            self.keys = body["keys"]
            self.descriptions = body["descriptions"]
            found = self.reply(body["bets"])
            return found if isinstance(found, web.Response) else await found

        app = web.Application(client_max_size=8 << 20)
        app.router.add_post("/evidence", answer)
        self.runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self.runner.setup()
        files = self.domain.verifier("v")
        context = listener_context(files.cert, files.key, self.domain.identity_ca)
        await web.TCPSite(self.runner, "127.0.0.1", self.port, ssl_context=context).start()

    def open(self, name: str = "spiffe://r.test/verifier/v") -> None:
        config = self.config(name)
        signer = KeySigner.from_file(config.monitor_dir / "evidence.key")
        self.ledger = Ledger.open(SqliteStore(config.ledger.path), "r.test/monitor/one", signer)
        self.ledger.put_document("key", self._bets.jwk["kid"], self._bets.jwk)
        assert config.verifier is not None
        self.reporting = Reporting(config, config.verifier, self.ledger)

    async def close(self) -> None:
        if self.reporting is not None:
            reporting, self.reporting = self.reporting, None
            await reporting.stop()
            await self.ledger.close()

    async def issue(self, count: int = 1, **ext: str) -> list[str]:
        """So many BETs, durable."""
        tokens = [self._bets.bet(ext=ext) for _ in range(count)]
        for token in tokens:
            self.ledger.add_bet(BetRow(token[-40:], "a", "p", 0, 0, 0.0, 1.0, token))
        await self.ledger.commit()
        return tokens

    @property
    def problem(self) -> str:
        assert self.reporting is not None
        return str(self.reporting.health()["problem"])

    def came(self) -> list[str]:
        """Everything that was pushed, once each."""
        return list(dict.fromkeys(token for tokens in self.pushed for token in tokens))


async def until(true: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 15
    while not true():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


@pytest.fixture
async def scene(tmp_path: Path, domain: TrustDomain, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    monkeypatch.setattr(reporting, "PAUSE_S", 0.02)
    made = Scene(tmp_path, domain)
    await made.serve()
    made.open()
    yield made
    await made.close()
    await made.runner.cleanup()


def start(scene: Scene) -> None:
    assert scene.reporting is not None
    scene.reporting.start()


async def test_each_is_pushed_at_once_with_its_key(scene: Scene) -> None:
    start(scene)
    first = await scene.issue()
    await until(lambda: scene.pushed == [first])
    assert [key["iss"] for key in scene.keys] == ["spiffe://r.test/monitor/one"]
    second = await scene.issue()
    await until(lambda: scene.pushed == [first, second])


async def test_a_key_that_is_long_out_of_use_comes_with_what_it_signed(scene: Scene) -> None:
    """A Verifier that is new is told everything; it takes a few keys at a time."""
    for number in range(40):
        scene.ledger.put_document("key", f"later-{number}", {"kid": f"later-{number}"})
    tokens = await scene.issue()
    start(scene)
    await until(lambda: scene.pushed == [tokens])
    assert [key["kid"] for key in scene.keys] == [KeySigner.from_file(scene.domain.monitor("one").evidence_key).kid]


async def test_what_the_evidence_names_comes_along(scene: Scene) -> None:
    """Descriptions of the monitor: those that these BETs name, whenever they were made, and no others."""
    for digest in ("d1", "d2", "d3"):
        scene.ledger.put_document("description", digest, {"token": f"token of {digest}"})
    await scene.issue()
    await scene.issue(description="d1")
    await scene.issue(2, description="d3")
    start(scene)
    await until(lambda: scene.pushed)
    assert scene.descriptions == ["token of d1", "token of d3"]
    scene.ledger.put_document("description", "d4", {"token": "token of d4"})
    await scene.issue(description="d4")
    await until(lambda: len(scene.pushed) == 2)
    assert scene.descriptions == ["token of d4"]
    await scene.issue(description="unknown")
    await until(lambda: len(scene.pushed) == 3)
    assert scene.descriptions == []


async def test_what_was_there_before_comes_first_and_never_again(scene: Scene) -> None:
    tokens = await scene.issue(3)
    start(scene)
    reporting = scene.reporting
    await until(lambda: reporting is not None and reporting._reported == len(tokens))
    await scene.close()
    assert scene.pushed == [tokens]
    scene.open()
    start(scene)
    more = await scene.issue()
    await until(lambda: len(scene.pushed) == 2)
    assert scene.pushed[1] == more


async def test_what_is_left_at_the_end_is_pushed(scene: Scene) -> None:
    start(scene)
    await scene.issue()
    await scene.close()
    assert len(scene.came()) == 1


async def test_an_end_without_a_verifier_does_not_last(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporting, "LAST_S", 0.2)

    async def never(tokens: list[str]) -> web.Response:
        await asyncio.sleep(30)
        raise AssertionError

    scene.reply = never
    start(scene)
    tokens = await scene.issue()
    began = time.monotonic()
    await scene.close()
    assert time.monotonic() - began < 10
    scene.reply, scene.pushed = accepted, []
    scene.open()
    start(scene)
    await until(lambda: scene.pushed == [tokens])


async def test_the_newest_come_along_with_the_oldest(scene: Scene) -> None:
    tokens = await scene.issue(300)
    start(scene)
    await until(lambda: len(scene.came()) == 300)
    assert scene.pushed[0][:64] == tokens[:64]
    assert tokens[-1] in scene.pushed[0]
    assert max(map(len, scene.pushed)) == 80


BAD_ANSWERS: dict[str, tuple[Reply, str]] = {
    "busy": (lambda _: web.Response(status=503, text="later"), "it answers 503 (later)"),
    "refused": (lambda _: web.Response(status=403, text="no"), "it answers 403 (no)"),
    "elsewhere": (lambda _: web.Response(status=307, headers={"Location": "/x"}), "it answers 307"),
    "no JSON": (lambda _: web.Response(text="yes"), "JSON"),
    "no verdicts": (lambda _: web.json_response({}), "not a verdict for each"),
    "too few": (lambda _: web.json_response({"verdicts": []}), "not a verdict for each of 1"),
    "no objects": (lambda _: web.json_response({"verdicts": [1]}), "no objects"),
    "without end": (lambda _: web.Response(body=b"x" * (2 << 20)), "more than 1048576 octets"),
    "again": (
        lambda _: web.json_response({"verdicts": [{"accepted": False, "again": True, "problem": "ahead"}]}),
        "wants a BET again later: ahead",
    ),
}


@pytest.mark.parametrize("answer", BAD_ANSWERS)
async def test_until_it_was_answered_it_is_pushed_again(scene: Scene, answer: str) -> None:
    scene.reply, said = BAD_ANSWERS[answer]
    start(scene)
    tokens = await scene.issue()
    await until(lambda: said in scene.problem)
    await until(lambda: len(scene.pushed) > 2)
    scene.reply = accepted
    await until(lambda: scene.problem == "")
    assert scene.came() == tokens


async def test_what_it_wants_later_waits_and_what_came_before_does_not(scene: Scene) -> None:
    tokens = await scene.issue(3)
    good, later = {"accepted": True}, {"accepted": False, "again": True, "problem": "ahead"}
    scene.reply = lambda sent: web.json_response({"verdicts": [later if t == tokens[1] else good for t in sent]})
    start(scene)
    await until(lambda: len(scene.pushed) > 1)
    assert scene.pushed[1] == tokens[1:]


async def test_what_it_will_never_accept_is_said_and_left(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.reply = lambda sent: web.json_response(
        {"verdicts": [{"accepted": False, "again": False, "problem": "no such key"} for _ in sent]}
    )
    start(scene)
    await scene.issue()
    await until(lambda: "the Verifier does not accept a BET: no such key" in caplog.text)
    scene.reply = accepted
    more = await scene.issue()
    await until(lambda: scene.pushed[-1] == more)


async def test_another_server_is_sent_nothing(scene: Scene) -> None:
    await scene.close()
    scene.open("spiffe://r.test/verifier/w")
    start(scene)
    await scene.issue()
    await until(lambda: "spiffe://r.test/verifier/v, expected spiffe://r.test/verifier/w" in scene.problem)
    assert scene.pushed == []


async def test_nothing_waits_for_a_push(scene: Scene) -> None:
    go_on = asyncio.Event()

    async def wait(tokens: list[str]) -> web.Response:
        await go_on.wait()
        return accepted(tokens)

    scene.reply = wait
    start(scene)
    tokens = await scene.issue()
    await until(lambda: scene.pushed)
    for _ in range(20):
        tokens += await scene.issue()
    assert scene.came() == tokens[:1], "the ledger goes on while one push is under way"
    go_on.set()
    await until(lambda: scene.came() == tokens)
    assert len(scene.pushed) == 2, "what came meanwhile goes together"


def test_a_verifier_of_another_trust_domain(tmp_path: Path, domain: TrustDomain) -> None:
    with pytest.raises(UsageError, match=r"verifier\.name: .* is of the trust domain x\.test, whose CA is not known"):
        Scene(tmp_path, domain).config("spiffe://x.test/verifier/v")
