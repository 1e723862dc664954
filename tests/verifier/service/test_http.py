"""The Verifier over real TLS: what it takes from whom, what it answers, and that openapi.json says so."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import jsonschema
import pytest
from end_to_end.world import binding
from pushed import Pusher
from serving import AGENT, Served, serving, write_config

from lictor.certs.domain import TrustDomain
from lictor.cli.init import write_binding
from lictor.formats import jws
from lictor.formats.errors import UsageError, VerificationError
from lictor.verifier.bets import parse_bet
from lictor.verifier.report import EXIT_CODES
from lictor.verifier.service import ear
from lictor.verifier.service.api import openapi
from lictor.verifier.service.asking import verify
from lictor.verifier.service.config import load, schema
from lictor.verifier.service.desk import Desk
from lictor.verifier.service.http import Service


@pytest.fixture(scope="module")
def domain(tmp_path_factory: pytest.TempPathFactory) -> TrustDomain:
    made = TrustDomain.create(tmp_path_factory.mktemp("verifier") / "trust", "v.test")
    made.add_verifier("v")
    for monitor in ("one", "two"):
        made.add_monitor(monitor)
    for agent in ("good", "revoked"):
        made.add_agent(agent)
    made.revoke_agent("revoked")
    return made


@pytest.fixture
def more() -> str:
    return ""


@pytest.fixture
async def served(tmp_path: Path, domain: TrustDomain, more: str) -> AsyncIterator[Served]:
    async with serving(tmp_path, domain, more) as found:
        yield found


@pytest.fixture
def one(domain: TrustDomain) -> Pusher:
    return Pusher(domain.monitor("one"), AGENT)


async def test_evidence_becomes_a_result(served: Served, one: Pusher) -> None:
    assert (await served.ask()).status == "none"
    first, second = one.bet(), one.bet()
    verdicts = await served.push(first, second, keys=[one.jwk])
    assert [(v["accepted"], v["known"]) for v in verdicts] == [(True, False)] * 2
    assert [v["known"] for v in await served.push(second, one.bet(), keys=[one.jwk])] == [True, False]
    result = await served.ask(nonce="12345678")
    assert result.status == "affirming"
    assert result.submodules[AGENT].behavior["bets"] == 3
    await served.push(one.bet(bhv_result="fail"), keys=[one.jwk])
    assert (await served.ask(AGENT, "spiffe://v.test/agent/x", profile="veraison")).status == "contraindicated"
    status, health = await served.call("GET", "/healthz")
    assert (status, json.loads(health)["bets"]) == (200, 4)


async def test_a_window_of_the_past(served: Served, domain: TrustDomain) -> None:
    """What lies in it altogether counts; nobody was asked for more, which is said."""
    now = time.time()
    pusher = Pusher(domain.monitor("one"), AGENT, now - 1000, step=100)
    results = ("pass", "fail", "pass", "pass")
    bets = [pusher.bet(iat=int(now), bhv_result=one) for one in results]
    await served.push(*bets, keys=[pusher.jwk])
    assert (await served.ask()).status == "contraindicated"
    first = parse_bet(bets[0]).start
    for start, end, status, count in [
        (200, 400, "warning", 2),
        (150, 400, "warning", 2),
        (0, 301, "contraindicated", 3),
    ]:
        window = {"start": first + start, "end": first + end}
        _, token = await served.call("POST", "/appraise", {"agents": [AGENT], "window": window})
        _, jwks = await served.call("GET", "/jwks.json")
        given = token, jwks, (AGENT,), None
        result = served.verified(*given, window=(window["start"], window["end"]))
        behavior = result.submodules[AGENT].behavior
        assert (result.status, behavior["bets"], behavior["window"]) == (status, count, window)
        assert "not_fresh" in [reason["what"] for reason in behavior["reasons"]]
        with pytest.raises(VerificationError, match="is over the window"):
            served.verified(*given)


UNSERVED = """[[monitor]]
name = "spiffe://v.test/monitor/one"
log = "https://127.0.0.1:1"
[logs]
demanded = true
within_s = 1
"""


@pytest.mark.parametrize("more", [UNSERVED])
async def test_what_was_not_checked_is_said_where_it_is_demanded(served: Served, one: Pusher) -> None:
    """Asking goes on all the while; the log's server is not there."""
    await served.push(one.bet(), keys=[one.jwk])
    deadline = time.monotonic() + 15
    while (result := await served.ask()).status == "affirming":
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)
    reasons = result.submodules[AGENT].behavior["reasons"]
    assert (result.status, [reason["what"] for reason in reasons]) == ("warning", ["not_checked"])
    _, health = await served.call("GET", "/healthz")
    (log,) = json.loads(health)["logs"]
    assert "does not answer" in log["problem"]


@pytest.mark.parametrize("path", [f"/results/{quote(AGENT, safe='')}", f"/results/{AGENT}"])
async def test_the_result_about_one_agent(served: Served, path: str) -> None:
    template = "/results/{agent}"
    _, token = await served.call("GET", f"{path}?nonce=87654321", template=template)
    _, jwks = await served.call("GET", "/jwks.json")
    assert served.verified(token, jwks, (AGENT,), "87654321").profile == "ietf"
    assert (await served.call("GET", f"{path}?nonce=1", template=template))[0] == 400
    assert (await served.call("GET", "/results/x", template=template))[0] == 400


async def test_every_path_that_is_served_is_described(tmp_path: Path, domain: TrustDomain) -> None:
    service = Service(load(write_config(tmp_path, domain)))
    routes = service._callers.app.router.routes()
    served = {(route.method.lower(), route.resource.canonical) for route in routes if route.resource is not None}
    described = {(method, path) for path, item in openapi()["paths"].items() for method in item}
    assert {one for one in served if one[0] != "head"} == described
    service._desk.close()


async def test_every_path_is_described_and_served(served: Served) -> None:
    _, body = await served.call("GET", "/openapi.json")
    assert json.loads(body) == openapi()
    for path, item in openapi()["paths"].items():
        for method in item:
            status, _ = await served.call(method.upper(), path.replace("{agent}", "spiffe://x/y"), b"{}", template=path)
            assert status in (200, 400), path
            operation = item[method]
            assert {"200", "403"} <= set(operation["responses"])
    # The schemas themselves are ones.
    for one in openapi()["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(one)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/evidence", b"no JSON"),
        ("/evidence", b"[]"),
        ("/evidence", {"keys": []}),
        ("/evidence", {"keys": [], "bets": []}),
        ("/evidence", {"keys": [], "bets": ["x"] * 257}),
        ("/evidence", {"keys": [], "bets": ["x" * 65537]}),
        ("/evidence", {"keys": [{}], "bets": ["x"]}),
        ("/evidence", {"keys": [], "bets": ["x"], "more": 1}),
        ("/appraise", {"agents": []}),
        ("/appraise", {"agents": [AGENT, AGENT]}),
        ("/appraise", {"agents": [f"{AGENT}{n}" for n in range(9)]}),
        ("/appraise", {"agents": ["spiffe://UPPER/x"]}),
        ("/appraise", {"agents": [AGENT], "nonce": "short"}),
        ("/appraise", {"agents": [AGENT], "nonce": "n\u00fcnn-nonce"}),
        ("/appraise", {"agents": [AGENT], "profile": "other"}),
        ("/appraise", {"agents": [AGENT], "window": {"start": 1}}),
        ("/appraise", {"agents": [AGENT], "window": {"start": "1", "end": 2}}),
        ("/appraise", {"agents": [AGENT], "window": {"start": 1, "end": 2}}),
        ("/appraise", {"agents": [AGENT], "window": {"start": time.time() - 5, "end": time.time() - 6}}),
        ("/appraise", {"agents": [AGENT], "window": {"start": time.time() - 5, "end": time.time() + 86400}}),
    ],
)
async def test_what_is_no_request(served: Served, path: str, body: Any) -> None:
    assert (await served.call("POST", path, body, "monitor/one"))[0] == 400


async def test_a_body_without_end(served: Served) -> None:
    async with aiohttp.ClientSession() as session:
        url = f"https://127.0.0.1:{served.port}/evidence"
        async with session.post(url, data=b"x" * (9 << 20), ssl=served.context("monitor/one")) as answer:
            assert answer.status == 413


async def test_who_may_push(served: Served, one: Pusher) -> None:
    assert await served.push(one.bet(), keys=[one.jwk], who="agent/good") == (
        403,
        "spiffe://v.test/agent/good may not push evidence to this Verifier\n",
    )
    status, text = await served.push(one.bet(), keys=[one.jwk], who="monitor/two")
    assert (status, "sent an evidence key of spiffe://v.test/monitor/one" in text) == (403, True)
    assert (await served.call("GET", "/healthz", who="agent/revoked"))[0] == 403
    with pytest.raises(aiohttp.ClientError):
        await served.call("GET", "/healthz", who=None)
    assert (await served.ask()).status == "none"


@pytest.mark.parametrize("more", ['relying_parties = ["spiffe://v.test/monitor/*"]'])
async def test_who_may_ask(served: Served) -> None:
    assert (await served.call("POST", "/appraise", {"agents": [AGENT]}))[0] == 403
    assert (await served.call("POST", "/appraise", {"agents": [AGENT]}, "monitor/two"))[0] == 200


async def test_each_bet_has_its_own_verdict(served: Served, one: Pusher, domain: TrustDomain) -> None:
    two = Pusher(domain.monitor("two"), AGENT)
    good = one.bet()
    bad = {
        "another's": (two.bet(), "no key"),
        "of another log": (one.bet(ext={"log_origin": "v.test/monitor/two"}), "is about the log v.test/monitor/two"),
        "for others": (one.bet(aud=["spiffe://v.test/agent/x"]), "the token is not for us"),
        "altered": (f"{good[:-8]}AAAAAAAA", "signature is wrong"),
        "no token": ("x", "not three base64url parts"),
        "a result": ((await served.call("POST", "/appraise", {"agents": [AGENT]}))[1].decode(), "typ is 'eat+jwt'"),
    }
    verdicts = await served.push(*(token for token, _ in bad.values()), good, keys=[one.jwk])
    for (name, (_, problem)), verdict in zip(bad.items(), verdicts, strict=False):
        assert (verdict["accepted"], verdict["again"]) == (False, False), name
        assert problem in verdict["problem"], name
    assert verdicts[-1]["accepted"]
    assert (await served.ask()).submodules[AGENT].behavior["bets"] == 1


async def test_a_clock_that_is_ahead_is_asked_again(served: Served, domain: TrustDomain) -> None:
    ahead = Pusher(domain.monitor("one"), AGENT, time.time() + 3600)
    (verdict,) = await served.push(ahead.bet(), keys=[ahead.jwk])
    assert (verdict["accepted"], verdict["again"]) == (False, True)
    assert "ahead of the Verifier's clock" in verdict["problem"]


def test_evidence_that_comes_late_is_taken(tmp_path: Path, domain: TrustDomain, one: Pusher) -> None:
    """The Verifier was down for longer than a BET lives: it still belongs into the chain, and makes nobody good now."""
    desk = Desk(load(write_config(tmp_path, domain)), now=lambda: time.time() + 2 * 86400)
    with contextlib.closing(desk):
        (verdict,) = desk.take(one.id, [one.jwk], [one.bet()])
        assert verdict["accepted"]
        token = desk.result(AGENT, [AGENT])
        assert jws.parse_compact(token, typ=frozenset({ear.TYP})).claims()["ear_status"] == "none"


def test_what_is_older_than_the_retention_goes(tmp_path: Path, domain: TrustDomain, one: Pusher) -> None:
    config = load(write_config(tmp_path, domain, "retention_days = 1"))
    with contextlib.closing(Desk(config, now=lambda: time.time() + 3600)) as desk:
        desk.take(one.id, [one.jwk], [one.bet()])
        assert (desk.forget(), desk.count()) == (0, 1)
    with contextlib.closing(Desk(config, now=lambda: time.time() + 90000)) as desk:
        assert (desk.forget(), desk.count()) == (1, 0)


async def test_too_much_at_once_is_refused(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lictor.verifier.service.http.WAITING", 0)
    assert (await served.call("POST", "/appraise", {"agents": [AGENT]}))[0] == 503


async def test_a_restart_loses_nothing(tmp_path: Path, domain: TrustDomain, one: Pusher) -> None:
    for _ in range(2):
        config = load(write_config(tmp_path, domain))
        service, ready = Service(config), asyncio.Event()
        running = asyncio.create_task(service.run(ready.set))
        await ready.wait()
        found = Served(domain, config.listen[1])
        if not (await found.ask()).submodules[AGENT].behavior["bets"]:
            await found.push(one.bet(), keys=[one.jwk])
        service.stop()
        await running
    assert (tmp_path / "r.db").stat().st_mode & 0o077 == 0


@pytest.fixture
def references(tmp_path: Path, domain: TrustDomain) -> Path:
    folder = tmp_path / "known"
    write_binding(folder / "p.json", binding("urn:p", tool_call=["urn:test:t"]), domain)
    return folder


@pytest.mark.parametrize("more", ['[references]\ndirectory = "known"\n'])
async def test_reference_copies_are_heeded_and_taken_live(
    references: Path, served: Served, one: Pusher, domain: TrustDomain
) -> None:
    await served.push(one.bet(), keys=[one.jwk])
    reasons = (await served.ask()).submodules[AGENT].behavior["reasons"]
    assert [reason["what"] for reason in reasons] == ["other_binding"]
    write_binding(references / "q.json", binding("urn:q", tool_call=["urn:test:t"]), domain)

    async def missing() -> bool:
        said = (await served.ask()).submodules[AGENT].behavior["reasons"]
        return "policy_missing" in [reason["what"] for reason in said]

    deadline = time.monotonic() + 15
    while not await missing():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)


@pytest.mark.parametrize("more", ['[references]\ndirectory = "known"\n'])
async def test_reference_copies_that_disappear_stay_in_force(
    references: Path, served: Served, one: Pusher, caplog: pytest.LogCaptureFixture
) -> None:
    """Without any, every policy would do."""
    await served.push(one.bet(), keys=[one.jwk])
    for file in references.iterdir():
        file.unlink()
    deadline = time.monotonic() + 15
    while "holds no reference copies" not in caplog.text:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)
    reasons = (await served.ask()).submodules[AGENT].behavior["reasons"]
    assert [reason["what"] for reason in reasons] == ["other_binding"]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "there is no"),
        ("period_s = 0", "period_s"),
        ('relying_party = ["x"]', r"unknown key relying_party, did you mean relying_parties\?"),
        ('[[monitor]]\nname = "spiffe://V/x"', r"monitor\[0\]\.name"),
        ('[[monitor]]\nname = "spiffe://v.test/m"\n' * 2, r"monitor\[1\]\.name: spiffe://v.test/m has a table already"),
        ('[[monitor]]\nname = "spiffe://v.test/m"\nlog = "http://127.0.0.1:1"', r"monitor\[0\]\.log"),
        ("[logs]\nquorum = 1", "logs.quorum needs the witnesses' keys"),
        ('[logs]\nwitnesses = ["nowhere"]', "the witness keys in .*nowhere cannot be read"),
        ('monitors = ["spiffe://v.test/*/x"]', "monitors: the subject"),
        ("relying_parties = []", "relying_parties"),
        ('[references]\ndirectory = "nowhere"', "nowhere cannot be read"),
        ('[references]\ndirectory = "."', "holds no reference copies"),
        ("retention_days = 0.01", "retention_days is shorter than period_s"),
    ],
)
def test_configurations_that_are_refused(tmp_path: Path, domain: TrustDomain, text: str, what: str) -> None:
    path = write_config(tmp_path, domain, text)
    if not text:
        path.unlink()
    with pytest.raises(UsageError, match=what):
        Service(load(path))


@pytest.mark.parametrize("key", ['name = "w"', 'listen = "127.0.0.1:70000"', 'trust = "nowhere"', "x = 1"])
def test_other_values_that_are_refused(tmp_path: Path, domain: TrustDomain, key: str) -> None:
    path = write_config(tmp_path, domain)
    lines = [line for line in path.read_text().splitlines() if line.split()[0] != key.split()[0]]
    path.write_text("\n".join([*lines, key]))
    with pytest.raises(UsageError):
        load(path)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"verifier": "spiffe://v.test/verifier/w"}, "is of spiffe://v.test/verifier/v, expected"),
        ({"agents": (AGENT, "spiffe://v.test/agent/x")}, "not what was asked"),
        ({"nonce": "87654321"}, "does not answer to the nonce"),
        ({"now": 10.0}, "which is not now"),
        ({"jwks": b'{"keys": []}'}, "no key"),
        ({"jwks": b"{}"}, "no JWK Set"),
        ({"jwks": b"x"}, "cannot be read"),
    ],
)
async def test_answers_that_do_not_hold(served: Served, changes: dict[str, Any], what: str) -> None:
    _, token = await served.call("POST", "/appraise", {"agents": [AGENT], "nonce": "12345678"})
    _, jwks = await served.call("GET", "/jwks.json")
    given = {
        "jwks": jwks,
        "ca_pem": served.domain.identity_ca.read_bytes(),
        "verifier": "spiffe://v.test/verifier/v",
        "agents": (AGENT,),
        "now": time.time(),
        "nonce": "12345678",
    }
    verify(token.decode(), **given)
    with pytest.raises(VerificationError, match=what):
        verify(token.decode(), **(given | changes))


async def test_a_monitor_s_key_makes_no_result(served: Served, one: Pusher) -> None:
    forged = ear.issue(one.signer, one.id, {AGENT: ear.Submodule("affirming")}, time.time(), 60)
    jwks = json.dumps({"keys": [one.jwk]}).encode()
    with pytest.raises(VerificationError, match="the result is of spiffe"):
        served.verified(forged.encode(), jwks, (AGENT,), None)


def test_documented() -> None:
    """Every key of the configuration is in docs/verifier.md, and every reason that a result can name."""
    folder = Path(__file__).parents[3]
    text = (folder / "docs/verifier.md").read_text()
    for key, table in schema()["properties"].items():
        inner = table.get("items", table).get("properties", {})
        for name in [f"{key}.{one}" for one in inner] or [key]:
            assert f"`{name}`" in text
    code = "".join(path.read_text() for path in (folder / "verifier").rglob("*.py"))
    named = set(re.findall(r'(?:yield |Reason\.of\(|against\.append\(\()"([a-z_]+)"', code)) - {*EXIT_CODES}
    assert {"forked", "violations", "policy_missing", "two_histories", "not_checked"} <= named
    assert "`not_fresh`" in text
    assert not [what for what in named if f"`{what}`" not in text]
