"""Fresh evidence: what a monitor answers when it is asked, and what the Verifier makes of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from end_to_end.world import free_port
from pushed import Pusher

from lictor.certs.contexts import listener_context
from lictor.certs.domain import TrustDomain
from lictor.formats.errors import UsageError
from lictor.verifier.service import pulling
from lictor.verifier.service.config import VerifierConfig, load
from lictor.verifier.service.pulling import Pulling

AGENT, MONITOR = "spiffe://q.test/agent/a", "spiffe://q.test/monitor/one"
Reply = Callable[[], web.Response]


@pytest.fixture(scope="module")
def domain(tmp_path_factory: pytest.TempPathFactory) -> TrustDomain:
    made = TrustDomain.create(tmp_path_factory.mktemp("pulling") / "trust", "q.test")
    made.add_verifier("v")
    made.add_monitor("one")
    return made


def configuration(folder: Path, domain: TrustDomain, port: int, monitor: str = MONITOR) -> VerifierConfig:
    path = folder / "verifier.toml"
    path.write_text(
        f'name = "v"\nlisten = "127.0.0.1:1"\ntrust = "{domain.path}"\nregister = "r.db"\nperiod_s = 60\n'
        f'[[monitor]]\nname = "{monitor}"\norders = "https://127.0.0.1:{port}/"\n'
    )
    return load(path)


class Scene:
    """A monitor that answers as told, and which BETs have come."""

    def __init__(self) -> None:
        self.reply: Reply = lambda: web.Response(status=500)
        self.asked: list[Any] = []
        self.here: set[str] = set()
        self.answering = asyncio.Event()
        self.answering.set()
        self.port = free_port()

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(await request.json())
        await self.answering.wait()
        return self.reply()

    async def arrived(self, issuer: str, ids: Collection[str]) -> bool:
        return issuer == MONITOR and self.here.issuperset(ids)


@pytest.fixture
async def scene(domain: TrustDomain, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    monkeypatch.setattr(pulling, "ARRIVAL_S", 0.2)
    made = Scene()
    app = web.Application()
    app.router.add_post("/orders/bet", made.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    files = domain.monitor("one")
    context = listener_context(files.cert, files.key, domain.identity_ca)
    await web.TCPSite(runner, "127.0.0.1", made.port, ssl_context=context).start()
    yield made
    await runner.cleanup()


def said(result: Any, ok: bool = True, status: int = 200) -> Reply:
    return lambda: web.json_response({"ok": ok, "result" if ok else "error": result}, status=status)


async def pull(scene: Scene, folder: Path, domain: TrustDomain, monitor: str = MONITOR) -> str:
    """What stood in the way."""
    found = await Pulling(configuration(folder, domain, scene.port, monitor), scene.arrived).pull_all([AGENT])
    assert list(found) == [AGENT]
    return " ".join(found[AGENT])


async def test_all_has_come(scene: Scene, tmp_path: Path, domain: TrustDomain) -> None:
    token = Pusher(domain.monitor("one"), AGENT).bet(jti="00000000-0000-4000-8000-000000000001")
    scene.reply, scene.here = said([token]), {"00000000-0000-4000-8000-000000000001"}
    assert await pull(scene, tmp_path, domain) == ""
    (asked,) = scene.asked
    assert (asked["agent"], set(asked)) == (AGENT, {"agent", "from"})


async def test_a_window_of_the_past_is_asked_for_as_such(scene: Scene, tmp_path: Path, domain: TrustDomain) -> None:
    scene.reply = said([])
    one = Pulling(configuration(tmp_path, domain, scene.port), scene.arrived)
    await asyncio.gather(one.pull_all([AGENT], (100.0, 200.0)), one.pull_all([AGENT], (100.0, 300.0)))
    assert sorted((asked["from"], asked["to"]) for asked in scene.asked) == [(100, 200), (100, 300)]


async def test_a_monitor_that_never_saw_the_agent_has_nothing_to_add(
    scene: Scene, tmp_path: Path, domain: TrustDomain
) -> None:
    scene.reply = said(f"{pulling.NOTHING} {AGENT} at all", False, 400)
    assert await pull(scene, tmp_path, domain) == ""


@pytest.mark.parametrize(
    ("reply", "what"),
    [
        (said("the entries before 7 are erased", False, 400), "are erased"),
        (lambda: web.Response(status=403, text="may give no orders"), "it answers 403 (may give no orders)"),
        (lambda: web.Response(status=307, headers={"Location": "/"}), "it answers 307"),
        (lambda: web.Response(text="yes"), "JSON"),
        (said("x"), "no list of BETs"),
        (said([1]), "no list of BETs"),
        (said(["x.y.z"]), "cannot be read"),
        (lambda: web.Response(body=b"x" * (5 << 20)), "more than 4194304 octets"),
    ],
)
async def test_what_is_in_the_way_is_named(
    scene: Scene, tmp_path: Path, domain: TrustDomain, reply: Reply, what: str
) -> None:
    scene.reply = reply
    problem = await pull(scene, tmp_path, domain)
    assert problem.startswith(f"{MONITOR} was not heard: ")
    assert what in problem


async def test_what_was_issued_and_not_pushed_is_missed(scene: Scene, tmp_path: Path, domain: TrustDomain) -> None:
    scene.reply = said([Pusher(domain.monitor("one"), AGENT).bet()])
    assert "has not pushed it" in await pull(scene, tmp_path, domain)


async def test_another_server_is_asked_nothing(scene: Scene, tmp_path: Path, domain: TrustDomain) -> None:
    problem = await pull(scene, tmp_path, domain, "spiffe://q.test/monitor/two")
    assert "expected spiffe://q.test/monitor/two" in problem
    assert scene.asked == []


async def test_who_asks_meanwhile_waits_for_the_same(scene: Scene, tmp_path: Path, domain: TrustDomain) -> None:
    scene.reply = said([])
    one = Pulling(configuration(tmp_path, domain, scene.port), scene.arrived)
    found = await asyncio.gather(*(one.pull_all([AGENT]) for _ in range(20)))
    assert found == [{AGENT: []}] * 20
    assert len(scene.asked) == 1
    await one.pull_all([AGENT])
    assert len(scene.asked) == 2, "the next question is a new one"


async def test_what_was_asked_for_before_the_question_is_not_fresh(
    scene: Scene, tmp_path: Path, domain: TrustDomain
) -> None:
    """Whoever comes after the order has gone out gets evidence of another; over a window of the past it is the same."""
    scene.reply = said([])
    one = Pulling(configuration(tmp_path, domain, scene.port), scene.arrived)
    for window, orders in (None, 2), ((100.0, 200.0), 3):
        scene.answering.clear()
        first = asyncio.create_task(one.pull_all([AGENT], window))
        async with asyncio.timeout(15):
            while len(scene.asked) < orders - (window is None):
                await asyncio.sleep(0.005)
        others = [asyncio.create_task(one.pull_all([AGENT], window)) for _ in range(20)]
        await asyncio.sleep(0)
        scene.answering.set()
        assert await asyncio.gather(first, *others) == [{AGENT: []}] * 21
        assert len(scene.asked) == orders


async def test_who_asks_without_end_makes_no_queue_without_end(
    scene: Scene, tmp_path: Path, domain: TrustDomain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may ask can name windows as it likes, and need not wait for the answer."""
    monkeypatch.setattr(pulling, "WAITING", 5)
    scene.reply = said([])
    one = Pulling(configuration(tmp_path, domain, scene.port), scene.arrived)
    found = await asyncio.gather(*(one.pull_all([AGENT], (100.0, 200.0 + n)) for n in range(20)))
    assert sum("too much to ask" in " ".join(problems[AGENT]) for problems in found) == 15
    assert len(scene.asked) == 5
    assert await one.pull_all([AGENT]) == {AGENT: []}, "and then it goes on"


async def test_a_verifier_that_can_ask_nobody_says_so(tmp_path: Path, domain: TrustDomain) -> None:
    path = tmp_path / "verifier.toml"
    path.write_text(f'name = "v"\nlisten = "127.0.0.1:1"\ntrust = "{domain.path}"\nregister = "r.db"\n')
    found = await Pulling(load(path), Scene().arrived).pull_all([AGENT])
    assert found == {AGENT: ["this Verifier can ask no monitor: none has monitor.orders in its verifier.toml"]}


def test_monitors_are_named_by_their_spiffe_ids(tmp_path: Path, domain: TrustDomain) -> None:
    with pytest.raises(UsageError, match=r"monitor\[0\]\.name"):
        configuration(tmp_path, domain, 1, "spiffe://Q/x")
