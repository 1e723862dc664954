"""What a monitor says of itself: the token, what it can never pass for, and what BETs name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import described
import jwt
import orjson
import pytest

from lictor.evidence import bet, description, ect
from lictor.evidence.claims import KeyResolver
from lictor.evidence.entry import OWN_TYPES, ActionDraft, awaits_outcome
from lictor.evidence.ledger import Ledger
from lictor.evidence.recorder import Recorder
from lictor.evidence.sqlite_store import SqliteStore
from lictor.formats.errors import VerificationError
from lictor.formats.keys import KeySigner
from lictor.verifier.service import ear

MONITOR, AGENT = "spiffe://example.test/monitor/one", "spiffe://example.test/agent/a"
Open = Callable[[], tuple[Ledger, SqliteStore]]


def test_a_good_one(signer: KeySigner, keys: KeyResolver) -> None:
    said = described.claims()
    token = described.token(signer, said, ["MII="])
    found = description.verify(token, keys)
    assert (found.issuer, found.version, found.package, found.log_size) == (MONITOR, "1.2.3", "a" * 64, 0)
    assert (found.distributions["h2"], found.bindings, found.extensions) == ("4.3.0", ("d" * 43,), ())
    assert jwt.get_unverified_header(token)["typ"] == "monitor-description+jwt"
    read = jwt.decode(token, signer.public_key(), algorithms=["EdDSA"], options={"verify_iat": False})
    assert (read, read["eat_profile"]) == (said, "urn:lictor:eat:monitor")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        pytest.param({"eat_profile": "urn:x"}, "'eat_profile' is 'urn:x'", id="another profile"),
        pytest.param({"swname": "other"}, "'swname' is 'other'", id="another software"),
        pytest.param({"swversion": "1.2.3"}, "'swversion' is not an array", id="a version that is no array"),
        pytest.param(
            {"swversion": ["1", "semver", "x"]}, "'swversion' is not an array", id="more than version, scheme"
        ),
        pytest.param({"log_origin": "example.test/monitor/two"}, "speaks of the log", id="the log of another"),
        pytest.param({"jti": "1"}, "'jti'", id="no UUID"),
        pytest.param({"iat": 1.5}, "'iat'", id="a time with a fraction"),
        pytest.param({"started": None}, "'started' is missing", id="no start"),
        pytest.param({"log_size": -1}, "'log_size'", id="no size"),
        pytest.param({"package": "A" * 64}, "'package' is 'AAAA", id="a digest in capitals"),
        pytest.param({"package": "a" * 63}, "'package' is 'aaaa", id="a digest cut short"),
        pytest.param({"dependencies": None}, "'dependencies' is missing", id="no dependencies"),
        pytest.param({"distributions": ["h2"]}, "'distributions'", id="distributions without versions"),
        pytest.param({"distributions": {"h2\x1b": "1"}}, "'distributions'", id="a name that acts on terminals"),
        pytest.param({"configuration": 1}, "'configuration'", id="a digest that is a number"),
        pytest.param({"bindings": "d"}, "'bindings' is not an array", id="bindings that are no array"),
        pytest.param({"bindings": [1]}, "'bindings'", id="a binding that is a number"),
        pytest.param({"extensions": ["x"]}, "'extensions'", id="an extension that is no object"),
        pytest.param({"durability": ""}, "'durability'", id="no durability"),
    ],
)
def test_bad_claims(changes: dict[str, Any], text: str, signer: KeySigner, keys: KeyResolver) -> None:
    with pytest.raises(VerificationError, match=text.replace("(", r"\(")):
        description.verify(described.token(signer, described.claims(**changes)), keys)


@pytest.mark.parametrize("typ", ["bet+jwt", "exec+jwt", "wimse-exec+jwt", "eat+jwt", "JWT"])
def test_nothing_else_poses_as_one(typ: str, signer: KeySigner, keys: KeyResolver) -> None:
    """The same claims, signed by the same key."""
    with pytest.raises(VerificationError, match="typ is"):
        description.verify(described.token(signer, described.claims(), typ=typ), keys)


def test_it_poses_as_nothing_else(signer: KeySigner, keys: KeyResolver) -> None:
    token = described.token(signer, described.claims())
    for verify in (bet.verify, ect.verify, ear.verify):
        with pytest.raises(VerificationError, match=r"typ is 'monitor-description\+jwt'"):
            verify(token, keys)


def test_tampered_or_of_another_key(signer: KeySigner, keys: KeyResolver) -> None:
    head, _, tail = described.token(signer, described.claims()).split(".")
    other = described.token(signer, described.claims(package="f" * 64)).split(".")[1]
    with pytest.raises(VerificationError, match="the signature is wrong"):
        description.verify(f"{head}.{other}.{tail}", keys)
    stranger = described.claims("example.test/monitor/two")
    with pytest.raises(VerificationError, match="is known"):
        description.verify(described.token(signer, stranger), keys)


@pytest.fixture
def opened(open_ledger: Open) -> tuple[Ledger, SqliteStore]:
    return open_ledger()


def describe(ledger: Ledger, signer: KeySigner, bindings: tuple[str, ...] = ()) -> description.Description:
    said = description.claims_of(MONITOR, ledger, described.MEASURED, bindings, [])
    return description.enter(ledger, signer, ["MII="], said)


async def test_it_stands_in_the_log_and_bets_name_it(
    opened: tuple[Ledger, SqliteStore], signer: KeySigner, keys: KeyResolver
) -> None:
    ledger, store = opened
    recorder = Recorder(ledger, signer, MONITOR, lambda agent: (), stored=store)

    async def refused() -> bet.Bet:
        draft = ActionDraft(AGENT, "http_request", "https://x.test/", {}, "deny", "no_binding_applies", [])
        receipt = await recorder.record_action(draft)
        return bet.verify(receipt.behavioral_evidence[0], keys)

    before = await refused()
    assert "description" not in before.ext, "a monitor that has not described itself says nothing"
    first = describe(ledger, signer, ("b2", "b1"))
    assert (await refused()).ext["description"] == first.digest
    second = describe(ledger, signer)
    assert (await refused()).ext["description"] == second.digest != first.digest
    await recorder.close()
    await ledger.commit()
    entries = {seq: orjson.loads(data) for seq, data in store.entries()}
    entry = entries[first.log_size]
    assert (entry["agent_id"], entry["action_type"]) == (MONITOR, "monitor_description")
    assert description.parse(entry["action_parameters"]["description"], "").digest == first.digest
    assert entry["action_parameters"]["description"]["bindings"] == ["b1", "b2"]
    assert not awaits_outcome(entry)
    assert entry["action_type"] in OWN_TYPES
    assert list(description.tokens(store)) == [first.digest, second.digest]
    assert description.newest_token(store) == second.token
    assert description.verify(second.token, keys).digest == second.digest
    await ledger.close()


async def test_many_bindings_are_told_by_one_digest(opened: tuple[Ledger, SqliteStore], signer: KeySigner) -> None:
    """Each has 43 characters, and a token has room for 64 KiB."""
    ledger, _ = opened
    digests = [f"{number:043}" for number in range(5000)]
    found = describe(ledger, signer, tuple(digests))
    assert len(found.bindings) == description.MAX_BINDINGS
    assert found.bindings_digest == describe(ledger, signer, tuple(reversed(digests))).bindings_digest
    assert found.bindings_digest != describe(ledger, signer, tuple(digests[:-1])).bindings_digest
    assert len(found.token) < 64 * 1024
    await ledger.close()
