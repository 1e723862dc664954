"""Evidence lines are added; those that came in stay as they were."""

from __future__ import annotations

import hashlib

from mitmproxy import http

from lictor.addons.delegate import attach_evidence, attach_tokens, digests, joined
from lictor.evidence.entry import Receipt
from lictor.formats import base64url


def test_lines_are_added_never_rewritten() -> None:
    came = [(b"execution-context", b"in"), (b"Behavioral-Evidence", b"too"), (b"behavioral-evidence-checkpoint", b"as")]
    headers = http.Headers(came)
    where = 1, 1.0, "allow", "allowed", "w", "n"
    attach_evidence(headers, [Receipt(*where, ("node.1",), ("bet.1", "bet.2"), checkpoint=("note.1",))])
    assert headers.get_all("Execution-Context") == ["in", "node.1"]
    assert headers.get_all("Behavioral-Evidence") == ["too", "bet.1", "bet.2"]
    assert headers.get_all("Behavioral-Evidence-Checkpoint") == ["as", "note.1"]


def test_no_tokens_no_lines() -> None:
    headers = http.Headers()
    attach_tokens(headers, (), ())
    assert headers.fields == ()


def test_digests_of_what_the_other_side_claimed() -> None:
    headers = http.Headers([(b"Execution-Context", b"a"), (b"execution-context", b"b"), (b"X", b"y")])
    expected = [base64url.encode(hashlib.sha256(line).digest()) for line in (b"a", b"b")]
    assert digests(headers) == {"peer_ect": expected}
    assert digests(http.Headers()) == {}


class Compared(str):
    """Text that counts how often it is compared."""

    __slots__ = ()
    times = 0

    def __eq__(self, other: object) -> bool:
        Compared.times += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


def test_any_number_of_digests_is_joined_in_one_go() -> None:
    first, then = ([Compared(f"{name}{n}") for n in range(500)] for name in "ab")
    assert joined({"peer_bet": first}, {"peer_bet": [*then, *first]}) == {"peer_bet": [*first, *then]}
    assert Compared.times < 20_000
