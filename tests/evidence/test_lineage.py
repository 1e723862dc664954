"""Which node an action belongs to: asserted, traced, inferred, root; continuation, joins, and what ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from lictor.evidence import lineage
from lictor.evidence.claims import check_extension, new_id
from lictor.evidence.ect import Minted
from lictor.evidence.lineage import Lineage, Place, trace_id

T1 = "00-12345678901234567890123456789012-1234567890123456-01"
T2 = "00-22345678901234567890123456789012-1234567890123456-01"
W1, W2 = new_id(), new_id()
PEER = "spiffe://example.test/monitor/two"


class Mint:
    """Mints nodes at `now` and keeps what it was asked for."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.made: dict[str, tuple[Minted, tuple[str, ...], Mapping[str, Any] | None]] = {}

    def __call__(
        self, wid: str, parents: tuple[str, ...], audience: tuple[str, ...] = (), ext: Mapping[str, Any] | None = None
    ) -> Minted:
        jti = new_id()
        node = Minted(jti, wid, int(self.now), parents, f"token.{jti}.x")
        self.made[jti] = (node, audience, ext)
        return node


@pytest.fixture
def mint() -> Mint:
    return Mint()


@pytest.fixture
def of(mint: Mint) -> Lineage:
    return Lineage(mint)


def arrive(of: Lineage, mint: Mint, wid: str, line: str = "caller", trace: str | None = None) -> Minted:
    node = mint(wid, (new_id(),))
    of.open(node, [line], trace, PEER, mint.now)
    return node


def test_own_work_has_one_workflow_while_it_lasts(of: Lineage, mint: Mint) -> None:
    first, second = of.place([], None, 1000.0), of.place([], T1, 1300.0)
    assert first == second
    assert first.how == "root"
    assert mint.made[first.node][0].parents == ()


def test_a_node_that_is_not_fresh_is_continued(of: Lineage, mint: Mint) -> None:
    first = of.place([], None, 1000.0)
    mint.now = 1301.0
    second = of.place([], None, mint.now)
    assert (second.wid, second.how) == (first.wid, "root")
    assert mint.made[second.node][0].parents == (first.node,)
    assert of.place([], None, mint.now) == second


def test_work_after_an_idle_stretch_is_a_new_workflow(of: Lineage, mint: Mint) -> None:
    first = of.place([], None, 1000.0)
    mint.now = 1901.0
    second = of.place([], None, mint.now)
    assert second.wid != first.wid
    assert mint.made[second.node][0].parents == ()


def test_a_workflow_ends_before_it_has_too_many_ancestors(
    of: Lineage, mint: Mint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lineage, "MAX_ANCESTORS", 6)
    wids = []
    for _ in range(7):
        wids.append(of.place([], None, mint.now).wid)
        mint.now += 301
    assert len(set(wids)) == 3
    assert [wids.count(wid) for wid in dict.fromkeys(wids)] == [3, 3, 1]


def test_each_delegation_has_a_node_of_its_own(of: Lineage, mint: Mint) -> None:
    place = of.place([], None, 1000.0)
    one, two = of.delegate(place, (PEER,)), of.delegate(place, (PEER,))
    assert one.jti != two.jti
    assert one.parents == two.parents == (place.node,)
    assert one.wid == place.wid
    assert mint.made[one.jti][1] == (PEER,)


def test_the_one_open_delegation_is_inferred(of: Lineage, mint: Mint) -> None:
    node = arrive(of, mint, W1)
    place = of.place([], None, 1000.0)
    assert (place.wid, place.node, place.how) == (W1, node.jti, "inferred")


@pytest.mark.parametrize("line", ["own", "caller", "joined by a comma"])
def test_what_the_agent_asserts_goes_first(of: Lineage, mint: Mint, line: str) -> None:
    arrive(of, mint, W1, "other", T1)
    node = arrive(of, mint, W2, "mine", T2)
    lines = {"own": [node.token], "caller": ["mine"], "joined by a comma": [f"x , {node.token}"]}[line]
    place = of.place(lines, T1, 1000.0)
    assert (place.wid, place.node, place.how) == (W2, node.jti, "asserted")


def test_the_agent_may_assert_its_own_work(of: Lineage, mint: Mint) -> None:
    own = of.place([], None, 1000.0)
    arrive(of, mint, W1)
    token = mint.made[own.node][0].token
    assert of.place([token], None, 1000.0).node == own.node
    assert of.place([token], None, 1000.0).how == "asserted"


def test_a_made_up_line_names_nothing(of: Lineage, mint: Mint) -> None:
    node = arrive(of, mint, W1)
    place = of.place(["forged", node.token + "x"], None, 1000.0)
    assert (place.node, place.how) == (node.jti, "inferred")


def test_the_trace_goes_before_what_is_merely_open(of: Lineage, mint: Mint) -> None:
    node = arrive(of, mint, W1, "a", T1)
    arrive(of, mint, W2, "b", T2)
    place = of.place([], T1.replace("1234567890123456-01", "aaaaaaaaaaaaaaaa-00"), 1000.0)
    assert (place.node, place.how) == (node.jti, "traced")


def test_several_open_ones_of_a_workflow_are_joined(of: Lineage, mint: Mint) -> None:
    nodes = [arrive(of, mint, W1, str(n)) for n in range(3)]
    place = of.place([], None, 1000.0)
    node, _, ext = mint.made[place.node]
    assert (place.wid, place.how, ext) == (W1, "inferred", {})
    assert node.parents == tuple(n.jti for n in nodes)
    assert of.place([], None, 1000.0) == place
    nodes.append(arrive(of, mint, W1, "3"))
    assert mint.made[of.place([], None, 1000.0).node][0].parents == tuple(n.jti for n in nodes)


def test_a_join_names_open_ones_of_other_workflows(of: Lineage, mint: Mint) -> None:
    one, two = arrive(of, mint, W1, "a"), arrive(of, mint, W2, "b")
    place = of.place([], None, 1000.0)
    node, _, ext = mint.made[place.node]
    assert (node.wid, node.parents) == (W2, (two.jti,))
    assert ext == {"also": [f"{W1}/{one.jti}"]}


def test_a_join_has_no_more_predecessors_than_a_node_may_have(of: Lineage, mint: Mint) -> None:
    nodes = [arrive(of, mint, W1, str(n)) for n in range(120)]
    assert mint.made[of.place([], None, 1000.0).node][0].parents == tuple(n.jti for n in nodes[-100:])


def test_what_is_over_can_be_named_and_nothing_is_inferred_from_it(of: Lineage, mint: Mint) -> None:
    """An agent may answer first and work later."""
    node = deep(of, mint, 2, "a", T1)
    of.finish(node.jti)
    of.finish(node.jti)
    assert of.response(node.jti, 1000.0) is None
    assert of.named(node.jti) == ()
    named = Place(W1, node.jti, "asserted", 2, of=(node.jti,))
    for lines, trace, how in (([node.token], None, "asserted"), (["a"], T2, "asserted"), ([], T1, "traced")):
        assert of.place(lines, trace, 1000.0) == replace(named, how=how)
    assert of.place([], None, 1000.0).how == "root"
    other = arrive(of, mint, W2, "b", T1)
    assert of.place([], T1, 1000.0).node == other.jti, "what is open goes before"
    assert of.place([node.token], None, 1000.0) == named


def test_what_is_over_is_forgotten_an_hour_after_it_was_named(of: Lineage, mint: Mint) -> None:
    first, second = arrive(of, mint, W1, "a"), arrive(of, mint, W2, "b")
    of.finish(first.jti)
    of.finish(second.jti)
    mint.now += 3000
    assert of.place(["a"], None, mint.now).wid == W1
    mint.now += 3000
    assert [of.place([line], None, mint.now).how for line in ("b", "a")] == ["root", "asserted"]
    assert not {"b", second.token} & of._by_token.keys()


def test_what_was_answered_late_can_be_named_as_long(of: Lineage, mint: Mint) -> None:
    node = arrive(of, mint, W1, "a")
    mint.now += 2 * lineage.NAMED_S
    of.response(node.jti, mint.now)
    of.finish(node.jti)
    mint.now += lineage.NAMED_S
    assert of.place(["a"], None, mint.now).how == "asserted"


def test_of_what_is_over_the_last_are_kept(of: Lineage, mint: Mint) -> None:
    nodes = [arrive(of, mint, W1, f"line {number}") for number in range(lineage.MAX_OVER + 2)]
    for node in nodes:
        of.finish(node.jti)
    assert of.place(["line 2"], None, 1000.0).node == nodes[2].jti
    assert [of.place([f"line {number}"], None, 1000.0).how for number in (0, 1)] == ["root", "root"]
    arrive(of, mint, W1, "newest")
    of.finish(next(iter(of._open)))
    arrive(of, mint, W1, "open")
    assert [of.place([f"line {number}"], None, 1000.0).how for number in (2, 3)] == ["asserted", "inferred"]


def test_the_response_carries_a_fresh_node(of: Lineage, mint: Mint) -> None:
    node = arrive(of, mint, W1)
    assert of.response(node.jti, 1000.0) == (node, PEER)
    mint.now = 5000.0
    found = of.response(node.jti, mint.now)
    assert found is not None
    assert (found[0].wid, found[0].parents) == (W1, (node.jti,))
    assert mint.made[found[0].jti][1] == (PEER,)
    assert of.place([node.token], None, mint.now).node == found[0].jti


def test_a_long_task_continues_its_node(of: Lineage, mint: Mint) -> None:
    node = arrive(of, mint, W1)
    mint.now = 2500.0
    place = of.place([], None, mint.now)
    assert (place.wid, mint.made[place.node][0].parents) == (W1, (node.jti,))


def test_too_many_open_ones_push_out_the_oldest(of: Lineage, mint: Mint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lineage, "MAX_OPEN", 2)
    first = arrive(of, mint, W1)
    arrive(of, mint, W1)
    node = mint(W1, ())
    assert of.open(node, [], None, PEER, 1000.0) == first.jti
    assert of.response(first.jti, 1000.0) is None


def test_whoever_has_most_open_makes_room(of: Lineage, mint: Mint, monkeypatch: pytest.MonkeyPatch) -> None:
    """So a partner that opens very many, under any names, ends nobody else's."""
    monkeypatch.setattr(lineage, "MAX_OPEN", 4)

    def from_(peer: str) -> tuple[str, str | None]:
        node = mint(W1, ())
        return node.jti, of.open(node, [], None, peer, mint.now)

    own = [from_(PEER)[0] for _ in range(2)]
    partner = [from_(f"spiffe://partner.test/monitor/{n}") for n in range(6)]
    assert [dropped for _, dropped in partner] == [None, None, *(jti for jti, _ in partner[:4])]
    assert None not in [of.response(jti, mint.now) for jti in own]
    assert from_(PEER)[1] == own[0], "now that is the one that has most"


def test_tokens_of_a_long_strand_do_not_pile_up(of: Lineage, mint: Mint) -> None:
    node = arrive(of, mint, W1)
    [came] = node.parents
    for _ in range(300):
        mint.now += 301
        newest = of.place([], None, mint.now)
    assert max(len(of._by_token), len(of._open[node.jti].jtis)) <= 100
    arrive(of, mint, W2, "other")
    for line in (node.token, "caller"):
        assert of.place([line], None, mint.now) == replace(newest, how="asserted"), "what the agent was given"
    assert of.named(came) == of.named(newest.node) == of.named(node.jti) == (node.jti,)
    of.finish(next(reversed(of._open)))
    of.finish(node.jti)
    assert of.place([], None, mint.now + lineage.NAMED_S + 1).how == "root"
    assert {id(strand) for strand in of._by_token.values()} == {id(of._root)}


def deep(of: Lineage, mint: Mint, depth: int | None, line: str, trace: str | None = None) -> Minted:
    node = mint(W1, (new_id(),))
    of.open(node, [line], trace, PEER, mint.now, depth)
    return node


def test_own_work_was_never_handed_on(of: Lineage, mint: Mint) -> None:
    place = of.place([], None, 1000.0)
    assert (place.depth, mint.made[place.node][2]) == (0, {"depth": 0})
    assert mint.made[of.delegate(place, ()).jti][2] == {"depth": 0}


def test_the_depth_of_a_delegation_stays_with_its_work(of: Lineage, mint: Mint) -> None:
    node = deep(of, mint, 2, "a")
    assert of.place([node.token], None, 1000.0).depth == 2
    mint.now = 2500.0
    place = of.place(["a"], None, mint.now)
    assert (place.depth, mint.made[place.node][2]) == (2, {"depth": 2, "continues": True})
    assert of.own(mint.now).depth == 0


def test_what_work_is_within_stays_with_it_and_joins_add_up(of: Lineage, mint: Mint) -> None:
    one, two = ("a",), ("b", "c")
    for line, within in (("x", (one,)), ("y", (one, two))):
        of.open(mint(W1, (new_id(),)), [line], None, PEER, mint.now, 1, within)
    assert of.place(["x"], None, 1000.0).within == (one,)
    joined = of.place([], None, 1000.0)
    assert (joined.within, mint.made[joined.node][2]) == ((one, two), {"depth": 1, "within": [["a"], ["b", "c"]]})
    assert of.own(1000.0).within == ()
    mint.now = 2500.0
    continued = of.place(["y"], None, mint.now)
    assert mint.made[continued.node][2] == {"depth": 1, "within": [["a"], ["b", "c"]], "continues": True}
    assert mint.made[of.delegate(continued, (), (one,)).jti][2] == {"depth": 1, "within": [["a"]]}


def test_what_a_join_is_within_may_be_more_than_a_node_can_say(of: Lineage, mint: Mint) -> None:
    """It is kept to all the same: work within so much is handed on to nobody."""
    groups = [tuple((f"{strand}{n:02}" + "x" * 40,) for n in range(32)) for strand in range(4)]
    for n, within in enumerate(groups):
        of.open(mint(new_id(), (new_id(),)), [str(n)], None, PEER, mint.now, 1, within)
    joined = of.place([], None, 1000.0)
    assert joined.within == tuple(group for groups_of in groups for group in groups_of)
    mint.now = 2500.0
    for place in (joined, of.place([], None, mint.now)):
        ext = mint.made[place.node][2] or {}
        check_extension("ext", ext)
        assert (ext.get("within"), ext["within_omitted"]) == (None, 128)
    ext = mint.made[of.place(["0"], None, mint.now).node][2] or {}
    check_extension("ext", ext)
    assert (len(ext["within"]), ext.get("within_omitted")) == (32, None)
    assert "within_omitted" in lineage.extension(1, ((), *groups[0])), "33 groups, one of no binding"


def test_a_join_is_as_deep_as_its_deepest_part(of: Lineage, mint: Mint) -> None:
    deep(of, mint, 1, "a")
    deep(of, mint, 3, "b")
    place = of.place([], None, 1000.0)
    assert (place.depth, mint.made[place.node][2]) == (3, {"depth": 3})
    deep(of, mint, None, "c")
    place = of.place([], None, 1000.0)
    assert (place.depth, mint.made[place.node][2]) == (None, {})


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (T1, True),
        (T1[:-2] + "ff", True),
        ("cc" + T1[2:] + "-what-ever", True),
        (T1 + "-x", False),
        ("ff" + T1[2:], False),
        (T1.replace("12345678901234567890123456789012", "0" * 32), False),
        (T1.replace("-1234567890123456-", "-" + "0" * 16 + "-"), False),
        (T1[:-1], False),
        (T1.replace("12345678901234567890123456789012", "ABCDEFABCDEFABCDEFABCDEFABCDEFAB"), False),
        (T1 + "\n", False),
        ("", False),
        (None, False),
    ],
)
def test_traceparent(value: str | None, found: bool) -> None:
    assert (trace_id(value) is not None) is found
