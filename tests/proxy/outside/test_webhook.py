"""What receivers are told: each event once it is durable, in order, again until they have it, and nobody else."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from aiohttp import web
from end_to_end.world import Outside, free_port

from lictor.certs.domain import TrustDomain
from lictor.evidence.entry import ActionDraft, Resolution, own_fields
from lictor.evidence.ledger import Ledger
from lictor.evidence.recorder import PolicyInfo, Recorder
from lictor.evidence.sqlite_store import SqliteStore
from lictor.formats.errors import UsageError
from lictor.formats.keys import KeySigner
from lictor.proxy.config import Config, load
from lictor.proxy.outside import webhook
from lictor.proxy.outside.security_events import MARKS, kind_of
from lictor.proxy.outside.webhook import Webhooks

MONITOR, AGENT = "spiffe://w.test/monitor/one", "spiffe://w.test/agent/a"
Reply = Callable[[], Awaitable[web.Response] | web.Response]


@pytest.fixture(scope="module")
def domain(tmp_path_factory: pytest.TempPathFactory) -> TrustDomain:
    made = TrustDomain.create(tmp_path_factory.mktemp("webhook") / "trust", "w.test")
    made.add_monitor("one")
    return made


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Outside:
    return Outside(tmp_path_factory.mktemp("outside") / "world")


class Scene:
    """A ledger, and a receiver that answers as told."""

    def __init__(self, folder: Path, domain: TrustDomain, outside: Outside) -> None:
        self.folder, self.domain, self.outside, self.port = folder, domain, outside, free_port()
        self.reply: Reply = lambda: web.Response(status=202)
        self.tokens: list[str] = []
        self.requests: list[Any] = []
        self.webhooks: Webhooks | None = None

    def config(self, more: str = "", ca: str | None = None) -> Config:
        path = self.folder / "lictor.toml"
        trusted = f'ca = "{ca or self.outside.ca}"\n' if ca != "" else ""
        path.write_text(
            f'[monitor]\nname = "one"\n[listen]\negress = "127.0.0.1:1"\n[identity]\ntrust = "{self.domain.path}"\n'
            f'[bindings]\ndirectory = "."\n[ledger]\npath = "l.db"\n'
            f'[[webhook]]\nurl = "https://localhost:{self.port}/events"\naudience = "us"\n{trusted}{more}\n'
        )
        return load(path)

    async def serve(self) -> None:
        async def answer(request: web.Request) -> web.Response:
            self.requests.append((request.path, dict(request.headers), request.get_extra_info("peercert")))
            self.tokens.append(await request.text())
            found = self.reply()
            return found if isinstance(found, web.Response) else await found

        app = web.Application()
        app.router.add_post("/{path}", answer)
        self.runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self.runner.setup()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(self.domain.identity_ca))
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(self.outside.cert, self.outside.key)
        await web.TCPSite(self.runner, "127.0.0.1", self.port, ssl_context=context).start()

    def open(self, more: str = "", ca: str | None = None, start: bool = True) -> None:
        config = self.config(more, ca)
        signer = KeySigner.from_file(config.monitor_dir / "evidence.key")
        self.key = signer.public_key()
        store = SqliteStore(config.ledger.path)
        self.ledger = Ledger.open(store, "w.test/monitor/one", signer)
        policies = (PolicyInfo("urn:p", "1.0.0", "d", {"b": "high"}),)
        self.recorder = Recorder(self.ledger, signer, MONITOR, lambda agent: policies, stored=store)
        self.webhooks = Webhooks(config.webhooks, self.ledger, signer, MONITOR, config.ledger.path)
        if start:
            self.webhooks.start()

    async def close(self) -> None:
        if self.webhooks is not None:
            webhooks, self.webhooks = self.webhooks, None
            await webhooks.stop()
            await self.ledger.close()

    async def act(self, decision: str = "deny", reason: str = "not_in_allowlist", result: str = "fail") -> int:
        said = {"policy_id": "urn:p", "version": "1.0.0", "binding": "d", "behavior_id": "b", "result": result}
        secret = {"query_digest": "secret-parameter"}
        draft = ActionDraft(AGENT, "tool_call", "urn:x", secret, decision, reason, [said])
        return (await self.recorder.record_action(draft)).seq

    async def own(self, action_type: str, **said: Any) -> int:
        seq = self.ledger.add(own_fields(MONITOR, action_type, {"agent": AGENT, "by": "user:me", **said})).seq
        await self.ledger.commit()
        return seq

    @property
    def problem(self) -> str:
        assert self.webhooks is not None
        return str(self.webhooks.health()[0]["problem"])

    def told(self) -> list[dict[str, Any]]:
        """The claims of everything that was told, verified."""
        return [jwt.decode(token, self.key, ["EdDSA"], audience="us") for token in self.tokens]

    def entries(self) -> list[int]:
        return [next(iter(one["events"].values()))["entry"] for one in self.told()]


async def until(true: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 15
    while not true():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


@pytest.fixture
async def scene(
    tmp_path: Path, domain: TrustDomain, outside: Outside, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Scene]:
    monkeypatch.setattr(webhook, "PAUSE_S", 0.02)
    made = Scene(tmp_path, domain, outside)
    await made.serve()
    yield made
    await made.close()
    await made.runner.cleanup()


async def test_a_violation_is_told_with_its_evidence_and_without_parameters(scene: Scene) -> None:
    scene.open()
    await scene.act("allow", "allowed", "pass")
    seq = await scene.act()
    await until(lambda: scene.tokens)
    [claims] = scene.told()
    assert jwt.get_unverified_header(scene.tokens[0])["typ"] == "secevent+jwt"
    assert (claims["iss"], claims["aud"], claims["sub_id"]) == (MONITOR, "us", {"format": "uri", "uri": AGENT})
    event = claims["events"]["urn:lictor:event:violation"]
    assert (event["entry"], event["decision"], event["reason"]) == (seq, "deny", "not_in_allowlist")
    assert event["behaviors"] == [{"policy_id": "urn:p", "version": "1.0.0", "behavior_id": "b"}]
    [bet] = event["bets"]
    said = jwt.decode(bet["token"], scene.key, ["EdDSA"], options={"verify_aud": False})
    assert (said["jti"], said["sub"], said["ext"]["refused"]["seq"]) == (bet["jti"], AGENT, seq)
    assert "secret-parameter" not in json.dumps(claims)
    path, headers, cert = scene.requests[0]
    assert (path, headers["Content-Type"]) == ("/events", "application/secevent+jwt")
    assert ("URI", MONITOR) in cert["subjectAltName"]


async def test_all_that_is_told(scene: Scene) -> None:
    scene.open()
    seqs = [await scene.act("flag"), await scene.act("deny", "default_deny", "pass")]
    await scene.act("deny", "quarantined")
    names = "agent_quarantine", "agent_release", "hold_demanded", "hold_ended", "delegation_revoked"
    seqs += [await scene.own(name) for name in names]
    await scene.own("log_retention")
    held = asyncio.create_task(scene.act("hold"))
    await until(lambda: len(scene.tokens) == 8)
    scene.recorder._holds.resolve_all(lambda one: True, Resolution(False, "hold_denied", "user:me"))
    await held
    await until(lambda: len(scene.tokens) == 9)
    types = [next(iter(one["events"])).rpartition(":")[2] for one in scene.told()]
    assert types[:2] == ["violation", "violation"]
    assert types[2:7] == [
        "agent-quarantined", "agent-released", "hold-demanded", "hold-ended", "delegation-revoked",
    ]  # fmt: skip
    assert types[7:] == ["action-held", "action-decided"]
    assert scene.entries()[:7] == seqs
    for entry in map(json.loads, (data for _, data in scene.ledger._store.entries())):  # type: ignore[attr-defined]
        data = json.dumps(entry, separators=(",", ":")).encode()
        assert kind_of(entry) is None or any(mark in data for mark in MARKS)


async def test_only_the_kinds_that_were_asked_for(scene: Scene) -> None:
    scene.open('events = ["quarantine"]')
    await scene.act()
    seq = await scene.own("agent_quarantine")
    await until(lambda: scene.entries() == [seq])


async def test_nothing_is_lost_over_an_end_and_nothing_told_twice(scene: Scene) -> None:
    scene.open()
    await scene.act()
    await until(lambda: len(scene.tokens) == 1)
    scene.reply = lambda: web.Response(status=503)
    late = [await scene.act() for _ in range(3)]
    await scene.close()
    scene.reply, scene.tokens = lambda: web.Response(status=202), []
    scene.open()
    late.append(await scene.act())
    await until(lambda: len(scene.tokens) >= 4)
    assert scene.entries() == late
    await scene.close()
    scene.open()
    last = await scene.act()
    await until(lambda: len(scene.tokens) >= 5)
    assert scene.entries()[4:] == [last]


async def test_more_than_there_is_room_for_is_found_in_the_log(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "MOST_NOTICED", 3)
    monkeypatch.setattr(webhook, "SCANNED", 4)
    scene.open()
    go_on = asyncio.Event()

    async def wait() -> web.Response:
        await go_on.wait()
        return web.Response(status=202)

    scene.reply = wait
    seqs = [await scene.act() for _ in range(20)]
    assert len(scene.tokens) <= 1, "nobody waits for a receiver"
    go_on.set()
    await until(lambda: len(scene.tokens) >= 20)
    seqs.append(await scene.act())
    await until(lambda: len(scene.tokens) >= 21)
    assert scene.entries() == seqs


@pytest.mark.parametrize(
    ("answer", "said"),
    {
        "busy": (lambda: web.Response(status=503, text="later"), "it answers 503 (later)"),
        "not a 202": (lambda: web.Response(status=200), "it answers 200"),
        "elsewhere": (lambda: web.Response(status=307, headers={"Location": "/elsewhere"}), "it answers 307"),
        "not for us": (
            lambda: web.json_response({"err": "authentication_failed"}, status=400),
            "it answers 400",
        ),
        "without end": (lambda: web.Response(status=500, body=b"x" * (1 << 17)), "more than 65536 octets"),
    }.values(),
    ids=["busy", "not a 202", "elsewhere", "not for us", "without end"],
)
async def test_until_it_is_taken_it_is_told_again(scene: Scene, answer: Reply, said: str) -> None:
    scene.open()
    scene.reply = answer
    seq = await scene.act()
    await until(lambda: said in scene.problem)
    await until(lambda: len(scene.tokens) > 2)
    scene.reply = lambda: web.Response(status=202)
    await until(lambda: scene.problem == "")
    assert len(set(scene.tokens)) == 1, "one token, whose jti says that it is the same event"
    assert set(scene.entries()) == {seq}
    assert {path for path, _, _ in scene.requests} == {"/events"}


async def test_what_it_says_is_no_event_is_left(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.open()
    scene.reply = lambda: web.json_response({"err": "invalid_request", "description": "what?"}, status=400)
    await scene.act()
    await until(lambda: "does not take the event of entry 0" in caplog.text)
    scene.reply = lambda: web.Response(status=202)
    seq = await scene.act()
    await until(lambda: scene.entries()[-1] == seq)
    assert len(scene.tokens) == 2


async def test_a_server_that_nobody_vouches_for_is_told_nothing(scene: Scene) -> None:
    scene.open(ca=str(scene.domain.identity_ca))
    await scene.act()
    await until(lambda: "certificate verify failed" in scene.problem)
    assert scene.tokens == []


BAD = {
    "plain HTTP": ('url = "http://x.example/"', "webhook"),
    "a user in the URL": ('url = "https://u:p@x.example/"', "webhook"),
    "a fragment": ('url = "https://x.example/#x"', "webhook"),
    "no audience": ("", "audience"),
    "an unknown kind": ('audience = "a"\nevents = ["all"]', "events"),
    "a file that is not there": ('audience = "a"\nca = "none.pem"', "webhook[1].ca: there is no file"),
    "half a client certificate": (
        'audience = "a"\nclient_key = "lictor.toml"',
        "client_cert and client_key go together",
    ),
    "the same twice": ('audience = "us"', "the same url and audience"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_is_no_configuration(tmp_path: Path, domain: TrustDomain, outside: Outside, what: str) -> None:
    scene = Scene(tmp_path, domain, outside)
    text, said = BAD[what]
    url = "" if text.startswith("url") else f'url = "https://localhost:{scene.port}/events"\n'
    audience = 'audience = "a"\n' if text.startswith("url") else ""
    with pytest.raises(UsageError) as caught:
        scene.config(f"[[webhook]]\n{url}{audience}{text}\n")
    assert said in str(caught.value)
