"""Evidence from monitor to monitor over mutual TLS: to the one that is meant, from those that may, bounded in time."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from end_to_end.world import binding, free_port

from lictor.bindings.model import Binding
from lictor.bindings.schema import load_binding
from lictor.certs.bundle import make_bundle
from lictor.certs.contexts import client_context
from lictor.certs.domain import TrustDomain
from lictor.evidence.entry import Tokens
from lictor.formats.canonical import canonical
from lictor.formats.errors import FormatError
from lictor.proxy.config import Config, load
from lictor.proxy.outside import handing_over
from lictor.proxy.outside.apart import Apart
from lictor.proxy.outside.evidence_listener import EvidenceListener, may_delegate, read_tokens

URN = "urn:test:agent:b"
A = "spiffe://h.test/monitor/a"
TOKENS = Tokens(("node.a",), ("bet.a", "bet.a2"), (":note:;size=1;proof=::",))
REQUEST = "r" * 43


@pytest.fixture(scope="module")
def domain(tmp_path_factory: pytest.TempPathFactory) -> TrustDomain:
    made = TrustDomain.create(tmp_path_factory.mktemp("handing") / "trust", "h.test")
    for name in "abc":
        made.add_monitor(name)
    return made


def config(
    folder: Path, domain: TrustDomain, name: str, port: int, monitor: str = "b", evidence: str = "", more: str = ""
) -> Config:
    path = folder / f"{name}.toml"
    evidence = evidence or f"https://127.0.0.1:{port}"
    path.write_text(
        f'[monitor]\nname = "{name}"\n[identity]\ntrust = "{domain.path}"\n'
        f'[listen]\negress = "127.0.0.1:1"\ningress = "127.0.0.1:2"\nevidence = "127.0.0.1:{port}"\n'
        f'[ingress]\nagent = "spiffe://h.test/agent/{name}"\nurn = "{URN}"\nupstream = "http://127.0.0.1:3"\n'
        f'[bindings]\ndirectory = "."\n[ledger]\npath = "l.db"\n'
        f'[[target]]\nurn = "{URN}"\nkind = "agent"\nmatch = ["https://b.example/**"]\n'
        f'agent = "spiffe://h.test/agent/b"\nmonitor = "spiffe://h.test/monitor/{monitor}"\nevidence = "{evidence}"\n'
        + more
    )
    return load(path)


def callers(**more: object) -> list[Binding]:
    document = binding(delegation=[URN]) | {"subjects": [A]} | more
    return [load_binding(canonical(document), "test")]


class Two:
    """Monitor B listens, monitor A hands over to whom its catalog names."""

    def __init__(self, folder: Path, domain: TrustDomain) -> None:
        self.folder, self.domain, self.port = folder, domain, free_port()
        self.made: list[Apart] = []
        self.bindings = callers()
        self.b = Apart(config(folder, domain, "b", self.port), lambda: self.bindings)

    def a(self, name: str = "a", **more: str) -> Apart:
        made = Apart(config(self.folder, self.domain, name, self.port, **more), callers)
        self.made.append(made)
        return made


@pytest.fixture
async def two(tmp_path: Path, domain: TrustDomain) -> AsyncIterator[Two]:
    scene = Two(tmp_path, domain)
    scene.made.append(scene.b)
    await scene.b.start()
    yield scene
    for one in scene.made:
        await one.stop()


async def test_delivered_and_taken(two: Two) -> None:
    assert await two.a().deliver(URN, REQUEST, TOKENS) == ""
    assert await two.b.take("spiffe://h.test/monitor/c", REQUEST) == Tokens()
    assert await two.b.take(A, REQUEST) == TOKENS
    assert await two.b.take(A, REQUEST) == Tokens()


async def test_left_and_fetched(two: Two) -> None:
    two.b.leave(A, ["node-1", "node-2"], TOKENS)
    outcome = {"status": 200, "peer_bet": ["of the head"], "last_evidence": "missing"}
    found = await two.a().fetch(URN, "node-2", outcome)
    assert (found["status"], found["last_evidence"]) == (200, "fetched")
    assert found["peer_bet"][0] == "of the head"
    assert [len(found["peer_ect"]), len(found["peer_bet"])] == [1, 3]


async def test_another_may_not_fetch_it(two: Two) -> None:
    two.b.leave(A, ["node-1"], TOKENS)
    two.bindings = callers(subjects=["spiffe://h.test/monitor/*"])
    outcome = {"last_evidence": "missing"}
    assert await two.a("c").fetch(URN, "node-1", outcome) == outcome


async def test_nothing_is_told_to_another_server(two: Two) -> None:
    """Whoever listens there: it is the monitor that the catalog names, or it gets nothing."""
    said = await two.a(monitor="c").deliver(URN, REQUEST, TOKENS)
    assert "expected spiffe://h.test/monitor/c" in said
    assert await two.b.take(A, REQUEST) == Tokens()


async def test_who_may_not_delegate_may_not_deliver(two: Two) -> None:
    assert "403 spiffe://h.test/monitor/c may not delegate" in await two.a("c").deliver(URN, REQUEST, TOKENS)


async def test_other_evidence_for_the_same_request(two: Two) -> None:
    a = two.a()
    said = [await a.deliver(URN, REQUEST, tokens) for tokens in (TOKENS, TOKENS, Tokens(("other",), ("bet",)))]
    assert said[:2] == ["", ""]
    assert "409 other evidence waits for this already" in said[2]


async def test_too_much(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lictor.evidence.deposit.OWNER_BYTES", 100)
    assert "503 too much evidence waits already" in await two.a().deliver(URN, REQUEST, TOKENS)


async def test_nobody_there(two: Two) -> None:
    said = await two.a(evidence=f"https://127.0.0.1:{free_port()}").deliver(URN, REQUEST, TOKENS)
    assert "spiffe://h.test/monitor/b cannot be reached at https://127.0.0.1:" in said


async def test_one_that_never_answers(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handing_over, "DELIVERY_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        assert "no answer in time" in await two.a(evidence=f"https://127.0.0.1:{port}").deliver(URN, REQUEST, TOKENS)


async def test_what_cannot_be_fetched_is_given_up(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handing_over, "PAUSES_S", (0.0, 0.0))
    outcome = {"last_evidence": "missing"}
    assert await two.a(evidence=f"https://127.0.0.1:{free_port()}").fetch(URN, "node-1", outcome) == outcome


async def test_so_much_is_fetched_at_a_time(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else agents whose streams end without evidence could fill the memory with what waits for a slow monitor."""
    monkeypatch.setattr(handing_over, "FETCHES", 2)
    a, go_on, missing = two.a(), asyncio.Event(), {"last_evidence": "missing"}

    async def slow(*_: object) -> tuple[int, bytes]:
        await go_on.wait()
        return 404, b""

    monkeypatch.setattr(a._handing, "_ask", slow)
    waiting = [asyncio.create_task(a.fetch(URN, f"node-{n}", missing)) for n in range(2)]
    await asyncio.sleep(0)
    assert await asyncio.wait_for(a.fetch(URN, "node-3", missing), 4) == missing
    assert not any(task.done() for task in waiting)
    go_on.set()
    assert await asyncio.gather(*waiting) == [missing, missing]
    two.b.leave(A, ["node-4"], TOKENS)
    monkeypatch.undo()
    assert (await a.fetch(URN, "node-4", {}))["last_evidence"] == "fetched"


async def test_fetched_once_it_answers_again(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    a, asked = two.a(), []
    two.b.leave(A, ["node-1"], TOKENS)
    real = a._handing._ask

    async def broken(*arguments: object) -> tuple[int, bytes]:
        asked.append(arguments)
        if len(asked) < 3:
            raise OSError("connection lost")
        return await real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(handing_over, "PAUSES_S", (0.0, 0.0, 0.0))
    monkeypatch.setattr(a._handing, "_ask", broken)
    assert (await a.fetch(URN, "node-1", {}))["last_evidence"] == "fetched"
    assert len(asked) == 3


async def test_a_target_that_the_catalog_does_not_know(two: Two) -> None:
    assert "the catalog does not say" in await two.a().deliver("urn:test:other", REQUEST, TOKENS)
    assert await two.a().fetch("urn:test:other", "node", {}) == {}


async def test_across_trust_domains(domain: TrustDomain, tmp_path: Path) -> None:
    """By their trust bundles: without that of the caller's the callee's monitor does not let it in."""
    partner = TrustDomain.create(tmp_path / "partner", "p.test")
    partner.add_monitor("a")
    known = {}
    for name, made in (("h.test", domain), ("p.test", partner)):
        (tmp_path / f"{name}.json").write_text(json.dumps(make_bundle(made)))
        known[name] = f'[[federation]]\ntrust_domain = "{name}"\nbundle = "{name}.json"\n'
    them, port = "spiffe://p.test/monitor/a", free_port()
    said = []
    for bundle in ("", known["p.test"]):
        made = config(tmp_path, domain, "b", port, more=bundle)
        b = Apart(made, lambda: callers(subjects=[them]))
        await b.start()
        a = Apart(config(tmp_path, partner, "a", port, more=known["h.test"]), callers)
        said.append(await a.deliver(URN, REQUEST, TOKENS))
        taken = await b.take(them, REQUEST)
        await a.stop()
        await b.stop()
    assert "cannot be reached" in said[0]
    assert (said[1], taken) == ("", TOKENS)


async def test_without_a_listener_nothing_waits(tmp_path: Path, domain: TrustDomain) -> None:
    made = config(tmp_path, domain, "a", 9)
    path = tmp_path / "none.toml"
    text = made.path.read_text().replace('evidence = "127.0.0.1:9"\n', "")
    path.write_text(text)
    apart = Apart(load(path), callers)
    await apart.start()
    apart.leave(A, ["node"], TOKENS)
    assert await apart.take(A, REQUEST) == Tokens()
    await apart.stop()


@pytest.mark.parametrize(
    ("caller", "bindings", "may"),
    [
        (A, callers(), True),
        ("spiffe://h.test/monitor/c", callers(), False),
        ("spiffe://h.test/agent/a", callers(subjects=["spiffe://h.test/*"]), False),
        (A, [], False),
        (A, [load_binding(canonical(binding(http_request=["https://x.test/**"])), "test")], False),
    ],
)
def test_who_may_deliver(caller: str, bindings: list[Binding], may: bool) -> None:
    assert may_delegate(bindings, caller) is may


@pytest.mark.parametrize(
    ("what", "data"),
    [
        ("nothing", b""),
        ("no object", b"[]"),
        ("a member too few", b'{"behavioral_evidence":[],"execution_context":[]}'),
        ("a member too many", b'{"behavioral_evidence":[],"checkpoint":[],"execution_context":[],"x":[]}'),
        ("no list", b'{"behavioral_evidence":"x","checkpoint":[],"execution_context":[]}'),
        ("no text", b'{"behavioral_evidence":[1],"checkpoint":[],"execution_context":[]}'),
        ("empty text", b'{"behavioral_evidence":[""],"checkpoint":[],"execution_context":[]}'),
        ("line end", b'{"behavioral_evidence":["a\\n"],"checkpoint":[],"execution_context":[]}'),
        ("too many", b'{"behavioral_evidence":[],"checkpoint":[],"execution_context":[%s]}' % b",".join([b'"a"'] * 17)),
    ],
)
def test_tokens_that_are_none(what: str, data: bytes) -> None:
    with pytest.raises(FormatError):
        read_tokens(data)


def test_what_cannot_be_left_is_logged(
    tmp_path: Path, domain: TrustDomain, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("lictor.evidence.deposit.OWNER_BYTES", 100)
    listener = EvidenceListener(config(tmp_path, domain, "b", 9), callers)
    with caplog.at_level(logging.ERROR):
        listener.leave(A, ["node-1"], TOKENS)
    assert "the evidence about the delegation node-1 cannot be fetched" in caplog.text


async def test_a_body_that_does_not_come(two: Two, domain: TrustDomain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lictor.proxy.outside.evidence_listener.READ_S", 0.1)
    files = domain.monitor("a")
    context = client_context(domain.identity_ca, files.cert, files.key)
    reader, writer = await asyncio.open_connection("127.0.0.1", two.port, ssl=context)
    writer.write(b"PUT /deliveries/x HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
    assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 408")
    writer.close()
