"""One entry for an auditor: what it proves, what it hides, and every way in which it may not hold."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import pytest

from lictor.certs.domain import TrustDomain
from lictor.evidence.disclosure import Disclosure, covering, disclose
from lictor.evidence.entry import ActionDraft
from lictor.evidence.ledger import Ledger
from lictor.evidence.proof_files import parse_inclusion
from lictor.evidence.recorder import PolicyInfo, Recorder
from lictor.evidence.salted import SD, disclosure, sd_digest
from lictor.evidence.sqlite_store import SqliteReader
from lictor.evidence.windows import Window
from lictor.formats import base64url
from lictor.formats.canonical import canonical
from lictor.formats.errors import FormatError, LictorError, UsageError, VerificationError
from lictor.verifier.disclosure import check_disclosure

SECRET, OTHER = "the patient's name is Ada", "a neighbour of the entry"
ALPHA, BETA = "spiffe://example.test/agent/alpha", "spiffe://example.test/agent/beta"
START = Callable[[], tuple[Ledger, Recorder]]
Log = Any


def action(policy: PolicyInfo, result: str) -> ActionDraft:
    """An action of ALPHA that the behavior `reads` judged."""
    ids = {"policy_id": policy.policy_id, "version": policy.version, "binding": policy.digest}
    decision, reason = ("allow", "allowed") if result == "pass" else ("deny", "not_in_allowlist")
    target, behaviors = "https://api.example.test/item", [{**ids, "behavior_id": "reads", "result": result}]
    return ActionDraft(ALPHA, "http_request", target, {"method": "GET"}, decision, reason, behaviors)


@dataclass
class Kept:
    """A log with one entry that keeps three values; `seq` is the entry, `bet` the BET whose window it is in."""

    log: Log
    seq: int
    bet: str

    def disclose(self, *names: str, jti: str | None = None, seq: int | None = None) -> Disclosure:
        with closing(SqliteReader(self.log.ledger)) as reader:
            return disclose(reader, self.seq if seq is None else seq, names, jti)

    def check(self, shown: Disclosure) -> Any:
        return check_disclosure(shown.text(), self.log.ca)


@pytest.fixture
async def kept(log: Log, running: START) -> Kept:
    ledger, recorder = running()
    values = {"/arguments/name": SECRET, "/arguments/age": 36, "/arguments/tags/0": None}
    texts = [disclosure(name, value) for name, value in values.items()]
    draft = action(log.applying[0], "pass")
    await recorder.record_action(replace(draft, action_target="https://api.example.test/before"))
    receipt = await recorder.record_action(replace(draft, disclosures=texts))
    await recorder.record_action(replace(draft, disclosures=[disclosure("/arguments/name", OTHER)]))
    await recorder.close()
    await ledger.close()
    with closing(SqliteReader(log.ledger)) as reader:
        bet = covering(reader, receipt.seq)[0]
    return Kept(log, receipt.seq, bet)


def test_one_value_is_shown_and_the_others_stay_hidden(kept: Kept) -> None:
    shown = kept.disclose("/arguments/name", jti=kept.bet)
    report = kept.check(shown)
    assert [(one.name, one.value) for one in report.opened] == [("/arguments/name", SECRET)]
    assert report.hidden == 2
    assert report.entry["seq"] == kept.seq
    assert report.entry["agent_id"] == ALPHA
    assert report.bet.jti == kept.bet


def test_the_file_holds_nothing_of_other_entries_or_values(kept: Kept) -> None:
    whole = kept.disclose().text()
    # Two layers of base64url: the proof's extra line, and disclosures.
    extra = parse_inclusion(json.loads(whole)["proof"]).extra
    assert extra is not None
    seen = whole.encode() + extra
    with closing(SqliteReader(kept.log.ledger)) as reader:
        texts = [text for at in (kept.seq, kept.seq + 1) for text in reader.disclosures(at)]
        others = [data for seq, data in reader.entries() if seq != kept.seq]
    assert len(texts) == 4
    assert not any(text.encode() in seen for text in texts)
    assert not any(data in seen for data in others)
    assert b"arguments" not in seen
    assert b"before" not in seen


def test_the_entry_holds_no_name_and_no_value(kept: Kept) -> None:
    with closing(SqliteReader(kept.log.ledger)) as reader:
        ((_, data),) = reader.entries(kept.seq, kept.seq + 1)
        texts = reader.disclosures(kept.seq)
    parameters = json.loads(data)["action_parameters"]
    assert parameters[SD] == sorted(map(sd_digest, texts))
    assert b"arguments" not in data
    assert SECRET.encode() not in data


def test_equal_values_have_unequal_digests() -> None:
    assert len({sd_digest(disclosure("/a", "yes")) for _ in range(100)}) == 100


def test_the_proof_is_under_the_checkpoint_of_the_bet(kept: Kept) -> None:
    report = kept.check(kept.disclose(jti=kept.bet))
    assert report.proof.size == report.bet.ext["checkpoint_size"]


def test_every_entry_of_a_window_can_be_shown_in_it(kept: Kept) -> None:
    """For every BET of the log exactly `count` entries can be shown to lie in its window."""
    with closing(SqliteReader(kept.log.ledger)) as reader:
        rows, size = list(reader.bets()), reader.head().size  # type: ignore[union-attr]
        for row in rows:
            shown = 0
            for seq in range(size):
                try:
                    check_disclosure(disclose(reader, seq, (), row.jti).text(), kept.log.ca)
                    shown += 1
                except UsageError:
                    continue
            assert shown == row.count, row.jti


@pytest.mark.parametrize(
    ("names", "jti", "message"),
    [
        (("/arguments/shoe",), None, r"keeps no value /arguments/shoe \(kept: /arguments/age, /arguments/name"),
        ((), "nobody", "there is no BET nobody"),
    ],
)
def test_what_is_not_there_is_named(kept: Kept, names: tuple[str, ...], jti: str | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        kept.disclose(*names, jti=jti)


def test_a_bet_of_another_window_is_refused(kept: Kept) -> None:
    with closing(SqliteReader(kept.log.ledger)) as reader:
        rows = list(reader.bets())
    beta = next(row.jti for row in rows if row.agent_id == BETA)
    with pytest.raises(UsageError, match=r"agent/alpha, the BET of .*agent/beta|is not among"):
        kept.disclose(jti=beta, seq=0)
    late = rows[-1].jti
    with pytest.raises(UsageError, match="is not in the window"):
        kept.disclose(jti=late, seq=0)


Forge = Callable[[Kept, Disclosure], Disclosure]


def _with_entry(change: Callable[[dict[str, Any]], None]) -> Forge:
    def forge(kept: Kept, shown: Disclosure) -> Disclosure:
        proof = parse_inclusion(shown.proof)
        assert proof.extra is not None
        extra = json.loads(proof.extra)
        change(extra["entry"])
        return replace(shown, proof=replace(proof, extra=canonical(extra)).text())

    return forge


def _fake_value(kept: Kept, shown: Disclosure) -> Disclosure:
    return replace(shown, fields=(disclosure("/arguments/name", "the patient's name is Bob"),))


def _renamed(kept: Kept, shown: Disclosure) -> Disclosure:
    salt, _, value = json.loads(base64url.decode(shown.fields[0]))
    text = json.dumps([salt, "/arguments/nickname", value], separators=(",", ":"))
    return replace(shown, fields=(base64url.encode(text.encode()),))


def _of_a_neighbour(kept: Kept, shown: Disclosure) -> Disclosure:
    return replace(shown, fields=kept.disclose("/arguments/name", seq=kept.seq + 1).fields)


def _bet_of(agent: str) -> Forge:
    def forge(kept: Kept, shown: Disclosure) -> Disclosure:
        with closing(SqliteReader(kept.log.ledger)) as reader:
            token = next(row.token for row in reader.bets(agent))
        return replace(shown, bet=token)

    return forge


def _bad_bet(kept: Kept, shown: Disclosure) -> Disclosure:
    assert shown.bet is not None
    return replace(shown, bet=shown.bet[:-8] + "AAAAAAAA")


def _other_place(kept: Kept, shown: Disclosure) -> Disclosure:
    return replace(shown, proof=re.sub(r"\nindex \d+\n", f"\nindex {kept.seq - 1}\n", shown.proof))


@pytest.mark.parametrize(
    ("forge", "message"),
    [
        (_fake_value, "/arguments/name is not one that the entry holds"),
        (_renamed, "/arguments/nickname is not one that the entry holds"),
        (_of_a_neighbour, "/arguments/name is not one that the entry holds"),
        (lambda _, shown: replace(shown, fields=shown.fields * 2), "holds the digest of, once"),
        (lambda _, shown: replace(shown, fields=("bm8",)), "JSON"),
        (_with_entry(lambda entry: entry.update(decision="deny")), "the entry is not entry"),
        (_with_entry(lambda entry: entry["action_parameters"].pop(SD)), "the entry is not entry"),
        (_with_entry(lambda entry: entry.update(agent_id=BETA)), "the entry is not entry"),
        (_other_place, "the entry is not entry"),
        (_bet_of(ALPHA), "the BET rests on the tree"),
        (_bet_of(BETA), "the BET rests on the tree"),
        (_bad_bet, "signature is wrong"),
        (lambda _, shown: replace(shown, bet="x.y.z"), "token"),
    ],
)
def test_nothing_forged_holds(kept: Kept, forge: Forge, message: str) -> None:
    shown = kept.disclose("/arguments/name", jti=kept.bet)
    with pytest.raises((VerificationError, FormatError), match=message):
        kept.check(forge(kept, shown))


def test_another_ca_does_not_vouch_for_it(kept: Kept, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = TrustDomain.create(tmp_path_factory.mktemp("other") / "trust", "example.test")
    with pytest.raises(VerificationError, match="not signed by the identity CA"):
        check_disclosure(kept.disclose().text(), other.identity_ca.read_bytes())


async def test_a_bet_that_says_pass_over_a_failure_is_a_contradiction(
    log: Log, running: START, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The monitor itself lies: it signs a pass over a window in which it logged a failure."""
    ledger, recorder = running()
    data = log.applying[0]
    monkeypatch.setattr(Window, "judge", lambda *_: None)
    receipt = await recorder.record_action(action(data, "fail"))
    await recorder.close()
    await ledger.close()
    with closing(SqliteReader(log.ledger)) as reader:
        jti = next(row.jti for row in list(reader.bets(ALPHA))[::-1] if row.policy_id == data.policy_id)
        shown = disclose(reader, receipt.seq, (), jti)
    with pytest.raises(VerificationError, match="reads failed here and the BET says pass"):
        check_disclosure(shown.text(), log.ca)


@pytest.mark.parametrize(
    "text", ["{}", "[]", '{"lictor":"disclosure/1","proof":"","fields":[1]}', '{"lictor":"disclosure/2"}', "null"]
)
def test_what_is_no_disclosure_is_named(log: Log, text: str) -> None:
    with pytest.raises(LictorError):
        check_disclosure(text, log.ca)
