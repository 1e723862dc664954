"""What the Verifier orders by itself: once each time, of whom and where it was told to, until it is taken."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from end_to_end.world import free_port

from lictor.certs.contexts import listener_context
from lictor.certs.domain import TrustDomain
from lictor.formats.errors import UsageError
from lictor.verifier.service import corrective
from lictor.verifier.service.config import load
from lictor.verifier.service.corrective import Corrective
from lictor.verifier.service.ear import Status, Submodule

A, B = "spiffe://k.test/agent/a", "spiffe://k.test/agent/b"
ONE, TWO = "spiffe://k.test/monitor/one", "spiffe://k.test/monitor/two"
VERIFIER = "spiffe://k.test/verifier/v"


@pytest.fixture(scope="module")
def domain(tmp_path_factory: pytest.TempPathFactory) -> TrustDomain:
    made = TrustDomain.create(tmp_path_factory.mktemp("corrective") / "trust", "k.test")
    made.add_verifier("v")
    made.add_monitor("one")
    return made


class Scene:
    """A monitor that takes orders as told, and what the Verifier thinks of agents."""

    def __init__(self, folder: Path, domain: TrustDomain) -> None:
        self.folder, self.domain, self.port = folder, domain, free_port()
        self.status: dict[str, Status] = {}
        self.orders: list[tuple[str, Any]] = []
        self.holds: Any = []
        self.reply: Callable[[], web.Response] = lambda: web.json_response({"ok": True, "result": {}})
        self.made: list[Corrective] = []

    def config(self, rules: str, orders: bool = True) -> Any:
        path = self.folder / "verifier.toml"
        where = f'orders = "https://127.0.0.1:{self.port}/"\n' if orders else ""
        path.write_text(
            f'name = "v"\nlisten = "127.0.0.1:1"\ntrust = "{self.domain.path}"\nregister = "r.db"\n'
            f'[[monitor]]\nname = "{ONE}"\n{where}[[corrective]]\n{rules}\n'
        )
        return load(path)

    def make(self, rules: str) -> Corrective:
        config = self.config(rules)
        made = Corrective(config.corrective, config.listener, config.spiffe_id, self.appraise)
        self.made.append(made)
        return made

    async def appraise(self, agent: str) -> Submodule:
        status = self.status.get(agent, "affirming")
        return Submodule(status, behavior={"reasons": [{"what": "violations", "text": "it did\x1b[2J that"}]})

    async def take(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if request.method == "GET":
            return web.json_response({"ok": True, "result": self.holds})
        self.orders.append((name, await request.json()))
        return self.reply()


async def until(true: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 15
    while not true():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


@pytest.fixture
async def scene(tmp_path: Path, domain: TrustDomain, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    monkeypatch.setattr(corrective, "PAUSE_S", 0.02)
    made = Scene(tmp_path, domain)
    app = web.Application()
    app.router.add_route("*", "/orders/{name}", made.take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    files = domain.monitor("one")
    context = listener_context(files.cert, files.key, domain.identity_ca)
    await web.TCPSite(runner, "127.0.0.1", made.port, ssl_context=context).start()
    yield made
    for one in made.made:
        await one.stop()
    await runner.cleanup()


async def settled(one: Corrective) -> None:
    await until(lambda: not one._tasks)


async def test_once_each_time_that_it_becomes_so(scene: Scene) -> None:
    one = scene.make('order = "quarantine"')
    seen = []
    for status in ("warning", "contraindicated", "contraindicated", "affirming", "none", "contraindicated"):
        scene.status[A] = status  # type: ignore[assignment]
        one.evidence_came([A, B])
        await settled(one)
        seen.append(len(scene.orders))
    assert seen == [0, 1, 1, 1, 1, 2]
    assert scene.orders[0] == ("quarantine", {"agent": A, "why": "contraindicated: it did?[2J that"})


async def test_a_hold_that_is_in_force_is_not_demanded_again(scene: Scene) -> None:
    rule = 'order = "hold"\nat = "warning"\nfor_s = 60'
    scene.status = {A: "warning", B: "contraindicated"}
    scene.holds = [{"agent": A, "by": "user:me"}, {"agent": B, "by": VERIFIER}]
    one = scene.make(rule)
    one.evidence_came([A, B])
    await settled(one)
    assert [(name, said["agent"], said["seconds"]) for name, said in scene.orders] == [("hold", A, 60)]


async def test_only_agents_that_are_meant(scene: Scene) -> None:
    one = scene.make(f'order = "quarantine"\nagents = ["{B}"]')
    scene.status = {A: "contraindicated", B: "contraindicated"}
    one.evidence_came([A, B])
    await settled(one)
    assert [said["agent"] for _, said in scene.orders] == [B]


async def test_until_it_is_taken(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    one = scene.make('order = "quarantine"')
    scene.status[A] = "contraindicated"
    scene.reply = lambda: web.Response(status=403, text="may not give the order")
    one.evidence_came([A])
    await until(lambda: len(scene.orders) > 2)
    scene.reply = lambda: web.json_response({"ok": True, "result": {}})
    await settled(one)
    assert caplog.text.count("it answers 403 (may not give the order)") == 1
    assert {said["agent"] for _, said in scene.orders} == {A}


async def test_an_order_without_a_reason_any_more_is_given_up(scene: Scene) -> None:
    """The monitor was away until the agent was better: it is not stopped for what is past."""
    one = scene.make('order = "quarantine"')
    scene.status[A] = "contraindicated"
    scene.reply = lambda: web.Response(status=503)
    one.evidence_came([A])
    await until(lambda: scene.orders)
    scene.status[A] = "affirming"
    one.evidence_came([A])
    await settled(one)
    taken = len(scene.orders)
    scene.reply = lambda: web.json_response({"ok": True, "result": {}})
    scene.status[A] = "contraindicated"
    one.evidence_came([A])
    await settled(one)
    assert len(scene.orders) == taken + 1


async def test_orders_that_wait_are_bounded(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A monitor may speak badly of any number of agents, while another takes no orders."""
    monkeypatch.setattr(corrective, "MOST", 3)
    agents = [f"spiffe://k.test/agent/{n}" for n in range(10)]
    one = scene.make('order = "quarantine"')
    scene.status = dict.fromkeys(agents, "contraindicated")
    scene.reply = lambda: web.Response(status=503)
    one.evidence_came(agents)
    await until(lambda: one._looking is None and len(one._tasks) == 3)
    scene.reply = lambda: web.json_response({"ok": True, "result": {}})
    scene.orders.clear()
    await settled(one)
    assert {said["agent"] for _, said in scene.orders} == set(agents[-3:])


async def test_evidence_that_cannot_be_looked_at_now_is_looked_at_later(scene: Scene) -> None:
    one = scene.make('order = "quarantine"')
    scene.status[A], tries, appraise = "contraindicated", [], scene.appraise

    async def busy(agent: str) -> Submodule:
        tries.append(agent)
        if len(tries) < 3:
            raise web.HTTPServiceUnavailable
        return await appraise(agent)

    one._appraise = busy
    one.evidence_came([A])
    await until(lambda: scene.orders)
    assert len(tries) == 3


BAD = {
    "nothing to order": ('at = "warning"', "order"),
    "another order": ('order = "erase"', "order"),
    "another status": ('order = "hold"\nat = "none"', "at"),
    "a time for quarantine": ('order = "quarantine"\nfor_s = 1', "is how long a hold lasts"),
    "a monitor that takes none": (f'order = "hold"\nmonitors = ["{TWO}"]', f"say where {TWO} takes orders"),
    "no pattern": ('order = "hold"\nagents = ["a"]', "'a'"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_is_no_configuration(tmp_path: Path, domain: TrustDomain, what: str) -> None:
    rules, said = BAD[what]
    with pytest.raises(UsageError) as caught:
        Scene(tmp_path, domain).config(rules)
    assert said in str(caught.value)


def test_nobody_to_order(tmp_path: Path, domain: TrustDomain) -> None:
    with pytest.raises(UsageError, match="say where any monitor takes orders"):
        Scene(tmp_path, domain).config('order = "hold"', orders=False)
