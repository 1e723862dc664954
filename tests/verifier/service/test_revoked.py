"""Evidence keys that were revoked, our own monitors' and partners': over real TLS, while the Verifier runs."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from federating import DIGEST, NAMED, OURS, OWN, PARTNER, RULES, THEIRS, VERIFIER, B, World, call, evidence, shown
from pushed import Pusher
from serving import Served, serving

from lictor.certs.authority import read_certificate
from lictor.cli.init import write_binding
from lictor.evidence.checkpoint import parse_checkpoint
from lictor.evidence.disclosure import parse_disclosure
from lictor.evidence.proof_files import parse_extra, parse_inclusion
from lictor.formats import base64url
from lictor.formats.signed_note import parse_note

MONITORS = {OWN: OURS, PARTNER: THEIRS}
both = pytest.mark.parametrize("ca", MONITORS)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World.make(tmp_path)


@pytest.fixture
async def served(world: World) -> AsyncIterator[Served]:
    write_binding(world.folder / "known" / "p.json", RULES, world.domains[OWN])
    async with serving(world.folder, world.domains[OWN], f'{NAMED}[references]\ndirectory = "known"\n') as found:
        yield found


def revoke(world: World, ca: str) -> None:
    """Of our own list the Verifier is not told; it lies in its directory."""
    world.domains[ca].revoke_monitor("m")
    if ca == PARTNER:
        world.exchange()


def rotate(world: World, ca: str) -> Pusher:
    world.domains[ca].rotate_evidence("m", overlap=False)
    return pusher(world, ca)


def pusher(world: World, ca: str) -> Pusher:
    """The monitor of a domain, of whose agent it speaks."""
    return world.pusher(ca, agent(ca))


def agent(ca: str) -> str:
    return f"spiffe://{ca}/agent/b"


async def hand_in(served: Served, text: str) -> tuple[int, str]:
    status, body = await served.call("POST", "/disclosures", text.encode())
    return status, body.decode()


async def against(served: Served, name: str) -> list[str]:
    return [one["what"] for one in (await served.ask(name)).submodules[name].behavior["reasons"]]


@both
async def test_what_a_revoked_key_signed_is_no_evidence(world: World, served: Served, ca: str) -> None:
    """The monitor goes on with another identity and another key; of either domain it is said in the same words."""
    former, context = pusher(world, ca), world.context(ca, MONITORS[ca])
    push = "POST", "/evidence"
    assert json.loads((await call(served, context, *push, evidence(former)))[1])["verdicts"][0]["accepted"]
    revoke(world, ca)
    newer = rotate(world, ca)
    body = {"keys": [former.jwk, newer.jwk], "bets": [former.bet(aud=[VERIFIER]), newer.bet(aud=[VERIFIER])]}
    first, second = json.loads((await call(served, context, *push, body))[1])["verdicts"]
    said = f"the certificate of the key {former.signer.kid!r} of {MONITORS[ca]!r} is revoked"
    assert first == {"accepted": False, "again": False, "problem": said}
    assert second["accepted"]


@both
async def test_nobody_is_misjudged_by_a_key_that_was_revoked(world: World, served: Served, ca: str) -> None:
    """Whoever holds it, and may ask, shows what the monitor never recorded."""
    stolen, context = pusher(world, ca), world.context(ca, MONITORS[ca])
    await call(served, context, "POST", "/evidence", evidence(stolen))
    honest, forged = await shown(world, stolen), await shown(world, stolen, "urn:test:bad")
    assert (await hand_in(served, honest))[0] == 200
    revoke(world, ca)
    expected = f"the checkpoint of {MONITORS[ca][9:]} is signed by no key but such whose certificate is revoked\n"
    for text in (forged, await shown(world, stolen, "urn:test:bad", rotate(world, ca))):
        assert await hand_in(served, text) == (400, expected)
        status, said = await hand_in(served, text.replace(r"\n1\n", r"\n2\n"))
        assert (status, "under the note is wrong" in said) == (400, True), "what nobody signed is not said to be"
    assert "misjudged" not in await against(served, agent(ca))


@both
@pytest.mark.parametrize("also", [False, True], ids=["newer key alone", "both keys"])
async def test_a_log_with_a_newer_key_is_shown_as_before(world: World, served: Served, ca: str, also: bool) -> None:
    former = pusher(world, ca)
    revoke(world, ca)
    text = await shown(world, rotate(world, ca), "urn:test:bad", former, both=also)
    jwks = parse_extra(parse_inclusion(parse_disclosure(text).proof).extra or b"")[1]
    assert [jwk["kid"] for jwk in jwks].count(former.signer.kid) == 1, "it is shown with both keys"
    status, said = await hand_in(served, text)
    assert (status, json.loads(said)["verdict"]) == (200, "misjudged")
    assert (await hand_in(served, text.replace("index 0", "index 1")))[0] == 400


@both
async def test_a_bet_of_a_revoked_key_shows_nothing(world: World, served: Served, ca: str) -> None:
    """Also under a checkpoint that a good key signed."""
    former, newer = pusher(world, ca), rotate(world, ca)
    alone = await shown(world, newer, other=former)
    note = parse_note(parse_inclusion(parse_disclosure(alone).proof).note)
    ext = {"checkpoint_root": base64url.encode(parse_checkpoint(note).root), "binding_digest": DIGEST}
    now = time.time()
    window = {"start": now - 60, "end": now + 1}
    token = former.bet(ext=ext, bhv_policy=RULES["policy_id"], bhv_window=window, iat=int(now) + 2)
    text = json.dumps({**json.loads(alone), "bet": token})
    assert (await hand_in(served, text))[0] == 200
    domain = world.domains[ca]
    (former_cert,) = domain.monitor("m").directory.glob("evidence-*.pem")
    domain._sign_crl([read_certificate(former_cert).serial_number])
    world.exchange()
    said = f"the certificate of the key {former.signer.kid!r} of {MONITORS[ca]!r} is revoked\n"
    assert await hand_in(served, text) == (400, said)
    assert (await hand_in(served, alone))[0] == 200


async def test_each_list_is_about_keys_of_its_own_domain(world: World, served: Served) -> None:
    """A partner cannot revoke ours, nor we a partner's, by their serial numbers."""
    serials = {ca: read_certificate(world.domains[ca].monitor("m").evidence_cert).serial_number for ca in MONITORS}
    world.domains[OWN]._sign_crl([serials[PARTNER]])
    world.domains[PARTNER]._sign_crl([serials[OWN]])
    world.exchange()
    for ca, monitor in MONITORS.items():
        assert (await hand_in(served, await shown(world, pusher(world, ca))))[0] == 200
        said = (await call(served, world.context(ca, monitor), "POST", "/evidence", evidence(pusher(world, ca))))[1]
        assert json.loads(said)["verdicts"][0]["accepted"]


async def test_without_a_list_to_believe_no_key_is_good(world: World, served: Served) -> None:
    """A partner's agent, who is let in by the bundle, shows what our monitor signed."""
    text, context = await shown(world, pusher(world, OWN)), world.context(PARTNER, B)
    other = await shown(world, pusher(world, PARTNER))
    crl = world.domains[OWN].crl
    good = crl.read_bytes()
    for data, what in ((b"nothing", "is not a revocation list in PEM"), (None, "cannot be read")):
        crl.unlink() if data is None else crl.write_bytes(data)
        status, said = await call(served, context, "POST", "/disclosures", json.loads(text))
        assert (status, what in said) == (400, True), said
        assert (await call(served, context, "POST", "/disclosures", json.loads(other)))[0] == 200
    crl.write_bytes(good)
    assert (await call(served, context, "POST", "/disclosures", json.loads(text)))[0] == 200
