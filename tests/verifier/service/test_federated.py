"""The Verifier and other trust domains, over real TLS: each CA vouches for its own, and who is not named is nobody."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from end_to_end.world import free_port
from federating import NAMED, OURS, OWN, PARTNER, RULES, TABLE, THEIRS, VERIFIER, B, World, call, evidence, shown
from serving import Served, serving, write_config

from lictor.certs.contexts import client_context, listener_context
from lictor.certs.domain import TrustDomain
from lictor.cli.init import write_binding
from lictor.evidence.disclosure import disclose
from lictor.evidence.ledger import Ledger
from lictor.evidence.sqlite_store import SqliteReader, SqliteStore
from lictor.formats.errors import LictorError, VerificationError
from lictor.verifier.service.asking import verify
from lictor.verifier.service.config import VerifierConfig, load
from lictor.verifier.service.corrective import Corrective
from lictor.verifier.service.desk import Desk
from lictor.verifier.service.ear import Submodule
from lictor.verifier.service.log_client import LogClient
from lictor.verifier.service.pulling import Pulling
from lictor.verifier.service.tiles import Unchecked

UNNAMED = f"spiffe://{PARTNER}/x/y"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World.make(tmp_path)


@pytest.fixture
async def served(world: World) -> AsyncIterator[Served]:
    async with serving(world.folder, world.domains[OWN], NAMED) as found:
        yield found


async def test_a_partners_agent_is_appraised_and_asked_for(world: World, served: Served) -> None:
    """Its monitor pushes, ours saw it too, an agent of either domain asks."""
    theirs, ours = world.pusher(PARTNER), world.pusher(OWN)
    for pusher, name, who in ((theirs, PARTNER, THEIRS), (ours, OWN, OURS)):
        status, said = await call(served, world.context(name, who), "POST", "/evidence", evidence(pusher))
        assert (status, [one["accepted"] for one in json.loads(said)["verdicts"]]) == (200, [True]), said
    result = await served.ask(B)
    assert (result.status, sorted(result.submodules[B].behavior["monitors"])) == ("affirming", [OURS, THEIRS])
    context = world.context(PARTNER, B)
    _, token = await call(served, context, "POST", "/appraise", {"agents": [B]})
    status, jwks = await call(served, context, "GET", "/jwks.json")
    assert status == 200
    ca = world.domains[OWN].identity_ca.read_bytes()
    assert verify(token, jwks.encode(), ca, VERIFIER, [B], None, None).status == "affirming"
    with pytest.raises(VerificationError, match=r"no CA is known that vouches for the trust domain v\.test"):
        verify(token, jwks.encode(), world.domains[PARTNER].identity_ca.read_bytes(), VERIFIER, [B], None, None)


ATTACKS: dict[str, tuple[str, str, str, str, str, str]] = {
    "partner's CA poses as our monitor": (PARTNER, OURS, OWN, OURS, OWN, "not signed by the identity CA of v.test"),
    "our CA poses as a partner's": (OWN, THEIRS, PARTNER, THEIRS, PARTNER, "not signed by the identity CA of w.test"),
    "a third domain": (PARTNER, "spiffe://x.test/monitor/m", PARTNER, THEIRS, PARTNER, "of the trust domain x.test"),
    "our domain below the partner's": (
        PARTNER,
        f"spiffe://{OWN}.{PARTNER}/monitor/m",
        PARTNER,
        THEIRS,
        PARTNER,
        "of the trust domain v.test.w.test",
    ),
    "a key that our CA certified for the partner's monitor": (
        PARTNER,
        THEIRS,
        OWN,
        THEIRS,
        PARTNER,
        "not signed by the identity CA of w.test",
    ),
    "a key that partner's CA certified for our monitor, sent by the partner's": (
        PARTNER,
        THEIRS,
        PARTNER,
        OURS,
        OWN,
        "no CA is known that vouches for the trust domain v.test",
    ),
    "a key that partner's CA certified for our monitor, sent by ours": (
        OWN,
        OURS,
        PARTNER,
        OURS,
        OWN,
        "not signed by the identity CA of v.test",
    ),
    "our monitor's own key, sent by the partner's": (
        PARTNER,
        THEIRS,
        OWN,
        OURS,
        OWN,
        "no CA is known that vouches for the trust domain v.test",
    ),
    "another monitor's of the partner": (
        PARTNER,
        f"spiffe://{PARTNER}/monitor/n",
        PARTNER,
        THEIRS,
        PARTNER,
        "sent an evidence key of spiffe://w.test/monitor/m",
    ),
    "a partner's monitor that is not named": (
        PARTNER,
        f"spiffe://{PARTNER}/monitors/m",
        PARTNER,
        THEIRS,
        PARTNER,
        "and not named here",
    ),
    "a partner's relying party": (PARTNER, B, PARTNER, THEIRS, PARTNER, "may not push evidence"),
}
"""Who has issued the certificate of the one who pushes, and for whom; who certified the evidence key, and for whom;
whose BETs they are; what is answered."""


@pytest.mark.parametrize("what", ATTACKS)
async def test_nobody_pushes_what_his_own_ca_does_not_vouch_for(world: World, served: Served, what: str) -> None:
    ca, uri, certified, of, signed, said = ATTACKS[what]
    pusher = world.pusher(signed)
    keys = [world.jwk(pusher.signer, certified, of)]
    body = evidence(pusher, keys=keys)
    status, text = await call(served, world.context(ca, uri), "POST", "/evidence", body)
    assert (status, said in text) == (403, True), text
    assert json.loads((await served.call("GET", "/healthz"))[1])["bets"] == 0


async def test_a_bet_of_another_is_none_beside_a_good_key(world: World, served: Served) -> None:
    """A partner's monitor that knows how to sign as ours would."""
    pusher = world.pusher(PARTNER)
    posing = [pusher.bet(aud=[VERIFIER], iss=OURS), pusher.bet(aud=[VERIFIER], ext={"log_origin": OURS[9:]})]
    body = {"keys": [pusher.jwk], "bets": posing}
    _, text = await call(served, world.context(PARTNER, THEIRS), "POST", "/evidence", body)
    assert [one["accepted"] for one in json.loads(text)["verdicts"]] == [False, False]


QUESTION = {"agents": [B]}
PATHS = {"/appraise": QUESTION, "/jwks.json": None, "/openapi.json": None, "/healthz": None}


@pytest.mark.parametrize(
    ("ca", "uri", "answers"),
    [
        (PARTNER, B, [200, 200, 200, 403]),
        (PARTNER, THEIRS, [403, 200, 200, 403]),
        (PARTNER, f"spiffe://{PARTNER}/agent/bb", [403] * 4),
        (PARTNER, UNNAMED, [403] * 4),
        (PARTNER, f"spiffe://{OWN}/agent/good", [403] * 4),
        (OWN, B, [403] * 4),
        (OWN, f"spiffe://{OWN}/agent/good", [200] * 4),
    ],
)
async def test_who_may_ask(world: World, served: Served, ca: str, uri: str, answers: list[int]) -> None:
    context, found = world.context(ca, uri), []
    for path, body in PATHS.items():
        found.append((await call(served, context, "POST" if body else "GET", path, body))[0])
    assert found == answers


@pytest.mark.parametrize("more", [TABLE, ""], ids=["bundle alone", "no bundle"])
async def test_nobody_of_a_partner_is_let_in_without_being_named(world: World, more: str) -> None:
    async with serving(world.folder, world.domains[OWN], more) as served:
        for uri in (THEIRS, B):
            context = world.context(PARTNER, uri)
            for path, body in PATHS.items():
                status, _ = await call(served, context, "POST" if body else "GET", path, body)
                assert status == (403 if more else 0)
            assert (await call(served, context, "POST", "/evidence", evidence(world.pusher(PARTNER))))[0] != 200


async def test_a_revoked_monitor_is_refused_at_its_next_request(world: World, served: Served) -> None:
    """On the connection that it has open."""
    files = world.domains[PARTNER].monitor("m")
    context, pusher = client_context(world.domains[OWN].identity_ca, files.cert, files.key), world.pusher(PARTNER)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as session:
        push = "POST", "/evidence"
        assert (await call(served, context, *push, evidence(pusher), session))[0] == 200
        world.domains[PARTNER].revoke_monitor("m")
        assert (await call(served, context, *push, evidence(pusher), session))[0] == 200, "nobody has told us yet"
        world.exchange()
        status, text = await call(served, context, *push, evidence(pusher), session)
        assert (status, text) == (403, f"the certificate of {THEIRS} is revoked\n")


async def test_a_key_is_no_good_once_the_partner_has_revoked_it(world: World, served: Served) -> None:
    """The monitor goes on with another, of which the bundle need not tell; what it signed before is not taken."""
    partner, former, context = world.domains[PARTNER], world.pusher(PARTNER), world.context(PARTNER, THEIRS)
    partner.revoke_monitor("m")
    partner.rotate_evidence("m", overlap=False)
    newer = world.pusher(PARTNER)
    bets = [former.bet(aud=[VERIFIER]), newer.bet(aud=[VERIFIER])]
    body = {"keys": [former.jwk, newer.jwk], "bets": bets[1:]}
    assert json.loads((await call(served, context, "POST", "/evidence", body))[1])["verdicts"][0]["accepted"]
    world.exchange()
    _, text = await call(served, context, "POST", "/evidence", body | {"bets": bets})
    first, second = json.loads(text)["verdicts"]
    assert (first["accepted"], "is revoked" in first["problem"], second["accepted"]) == (False, True, True)


async def test_a_partner_that_began_anew(world: World, served: Served) -> None:
    """Its new CA is believed once the bundle tells of it, and the former no longer."""
    former = world.context(PARTNER, THEIRS)
    assert (await call(served, former, "POST", "/evidence", evidence(world.pusher(PARTNER))))[0] == 200
    world.domains[PARTNER] = TrustDomain.create(world.folder / "anew", PARTNER)
    world.domains[PARTNER].add_monitor("m")
    newer, pusher = world.context(PARTNER, THEIRS), world.pusher(PARTNER)
    assert (await call(served, newer, "POST", "/evidence", evidence(pusher)))[0] == 0
    world.exchange()
    status, text = await call(served, newer, "POST", "/evidence", evidence(pusher))
    assert (status, json.loads(text)["verdicts"][0]["accepted"]) == (200, True)
    assert (await call(served, former, "POST", "/evidence", evidence(pusher)))[0] == 403


class Server:
    """Answers as a monitor's listeners would, with the certificate that it is given."""

    def __init__(self) -> None:
        self.port, self.seen = free_port(), 0

    async def answer(self, request: web.Request) -> web.Response:
        self.seen += 1
        return web.json_response({"ok": True, "result": []})

    @contextlib.asynccontextmanager
    async def shows(self, world: World, cert: tuple[Path, Path]) -> AsyncIterator[None]:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self.answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        context = listener_context(*cert, world.domains[PARTNER].identity_ca)
        context.load_verify_locations(world.domains[OWN].identity_ca)
        await web.TCPSite(runner, "127.0.0.1", self.port, ssl_context=context).start()
        try:
            yield
        finally:
            await runner.cleanup()

    def config(self, world: World, monitor: str) -> VerifierConfig:
        where = f"https://127.0.0.1:{self.port}"
        table = f'[[monitor]]\nname = "{monitor}"\norders = "{where}"\nlog = "{where}"\n'
        return load(
            write_config(world.folder, world.domains[OWN], f'{TABLE}{table}[[corrective]]\norder = "quarantine"\n')
        )


async def reached(server: Server, config: VerifierConfig) -> list[bool]:
    """Whether evidence is asked for, the log read, an order given."""
    name, found = config.known_monitors[0].name, []

    async def arrived(monitor: str, ids: Any) -> bool:
        return True

    found.append((await Pulling(config, arrived).pull_all([B]))[B] == [])
    client = LogClient(name, f"https://127.0.0.1:{server.port}", config.listener)
    try:
        found.append(bool(await asyncio.to_thread(client._get, "/checkpoint", 1000)))
    except Unchecked:
        found.append(False)
    client._close()

    async def bad(agent: str) -> Submodule:
        return Submodule("contraindicated")

    corrective, before = Corrective(config.corrective, config.listener, config.spiffe_id, bad), server.seen
    corrective.evidence_came([B])
    for _ in range(500 if found[0] else 20):
        if server.seen > before:
            break
        await asyncio.sleep(0.01)
    await corrective.stop()
    return [*found, server.seen > before]


@pytest.mark.parametrize(
    ("monitor", "ca", "uri", "good"),
    [
        (THEIRS, PARTNER, THEIRS, True),
        (OURS, OWN, OURS, True),
        (THEIRS, OWN, THEIRS, False),
        (OURS, PARTNER, OURS, False),
        (THEIRS, PARTNER, f"spiffe://{PARTNER}/monitor/n", False),
        (THEIRS, OWN, OURS, False),
        (THEIRS, PARTNER, OURS, False),
        (OURS, PARTNER, THEIRS, False),
    ],
)
async def test_which_server_is_a_monitor(world: World, monitor: str, ca: str, uri: str, good: bool) -> None:
    """Orders and logs: the monitor that is meant, by the CA of its own domain."""
    server = Server()
    async with server.shows(world, world.cert(ca, uri)):
        assert await reached(server, server.config(world, monitor)) == [good] * 3
        assert bool(server.seen) == good


async def test_who_serves_the_log_is_looked_at_when_the_bundle_has_changed(world: World) -> None:
    server, partner = Server(), world.domains[PARTNER]
    files = partner.monitor("m")
    config = server.config(world, THEIRS)
    client = LogClient(THEIRS, f"https://127.0.0.1:{server.port}", config.listener)
    async with server.shows(world, (files.cert, files.key)):
        await asyncio.to_thread(client._get, "/checkpoint", 1000)
        seen = server.seen
        partner.revoke_monitor("m")
        world.exchange()
        for _ in range(2):
            with pytest.raises(Unchecked, match="is revoked"):
                await asyncio.to_thread(client.shown, None)
        assert server.seen == seen, "not on the open connection, nor on another"
    client._close()
    world.domains[PARTNER] = partner = TrustDomain.create(world.folder / "anew", PARTNER)
    files = partner.add_monitor("m")
    world.exchange()
    async with server.shows(world, (files.cert, files.key)):
        assert await asyncio.to_thread(client._get, "/checkpoint", 1000)
    client._close()


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (f'monitors = ["{THEIRS}"]', r"monitors: .*/m is of the trust domain w\.test, whose CA is not known: name its"),
        (f'relying_parties = ["spiffe://{PARTNER}/*"]', r"relying_parties: .* is of the trust domain w\.test"),
        (f'[[monitor]]\nname = "{THEIRS}"', r"monitor\[0\]\.name: .* is of the trust domain w\.test"),
        (TABLE * 2, r"federation\[1\]\.trust_domain: w\.test has a table already"),
        (TABLE.replace(PARTNER, OWN), r"federation\[0\]\.trust_domain: v\.test is our own"),
        (TABLE.replace(PARTNER, "third.test"), r"is the bundle of w\.test, expected that of third\.test"),
        (TABLE.replace("w.json", "none.json"), r"the trust bundle .*none\.json cannot be read"),
        (TABLE.replace("w.json", "verifier.toml"), r"the trust bundle .* cannot be relied on"),
        ('[[federation]]\ntrust_domain = "w.test"', "bundle"),
        (f"{TABLE}x = 1", "unknown key federation.0.*x"),
    ],
)
def test_configurations_that_are_refused(world: World, text: str, what: str) -> None:
    with pytest.raises(LictorError, match=what):
        Desk(load(write_config(world.folder, world.domains[OWN], text)))


async def test_a_binding_without_subjects_is_for_the_agents_of_the_monitors_own_domain(
    world: World, served: Served
) -> None:
    """Of an agent, then, that no monitor of its own domain tells of, nothing is missing; nor is it misjudged."""
    write_binding(world.folder / "known" / "p.json", RULES, world.domains[OWN])
    more = f'{NAMED}[references]\ndirectory = "known"\n'
    async with serving(world.folder, world.domains[OWN], more) as served:
        for who, ca, missing in ((OURS, OWN, False), (THEIRS, PARTNER, True)):
            push = evidence(world.pusher(ca))
            assert (await call(served, world.context(ca, who), "POST", "/evidence", push))[0] == 200
            reasons = [one["what"] for one in (await served.ask(B)).submodules[B].behavior["reasons"]]
            assert ("policy_missing" in reasons) == missing
        for ca, verdict in ((OWN, "misjudged"), (PARTNER, "agrees")):
            text = await shown(world, world.pusher(ca))
            status, body = await served.call("POST", "/disclosures", text.encode())
            assert (status, json.loads(body)["verdict"]) == (200, verdict), body


async def test_a_disclosure_of_a_log_that_another_ca_certified(world: World, served: Served) -> None:
    """The key with which partner's CA lets somebody speak as our monitor opens nothing."""
    pusher = world.pusher(OWN)
    path = world.folder / "forged.db"
    ledger = Ledger.open(SqliteStore(path), OURS.removeprefix("spiffe://"), pusher.signer)
    ledger.put_document("key", pusher.signer.kid, world.jwk(pusher.signer, PARTNER, OURS))
    ledger.add({"agent_id": B, "action_type": "tool_call", "action_target": "urn:test:x", "action_parameters": {}})
    await ledger.commit()
    await ledger.close()
    with contextlib.closing(SqliteReader(path)) as reader:
        text = disclose(reader, 0).text()
    status, body = await served.call("POST", "/disclosures", text.encode())
    assert (status, b"not signed by the identity CA of v.test" in body) == (400, True), body
