"""Runs: actions that are alike, as a worker encodes them and the log takes them.

In the order of RFC 8785 an entry begins with `action_parameters` and `action_target`, its head. Then come what a run
has in common and what only the control process may say (`lineage`, `node`, `seq`, `timestamp`, `wid`). So the canonical
bytes of an entry are pieces put together, each of them canonical; nothing is parsed in order to be written again.

A worker is not believed. Of what a run has in common nothing but its values is taken, and a head is taken only if it is
the one canonical form of what it says.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from ..formats.canonical import canonical
from ..formats.errors import FormatError
from .entry import ActionDraft, Receipt
from .lineage import Place

_TEXTS = ("agent_id", "action_type", "decision", "reason")
_LISTS = ("execution_context", "audience", "disclosures")
_SAID = ("policy_id", "version", "binding", "behavior_id", "result")
_DICT, _STR = {dict}, {str}


@dataclass(frozen=True, slots=True)
class Common:
    """What the actions of a run have in common: the members of `ActionDraft` besides target and parameters.

    `plain` ones have nothing that the recorder would have to look at one by one: allowed, every behavior passed, no
    delegation, no headers that say where they belong, nothing kept beside them.
    """

    draft: ActionDraft
    plain: bool
    members: bytes

    def pieces(self, place: Place) -> tuple[bytes, bytes]:
        """The canonical bytes between the head of an entry and its `seq`, and those after its `timestamp`."""
        node, reason = canonical(place.node), canonical(self.draft.reason)
        middle = b',%b,"lineage":"%b","node":%b,"reason":%b,"seq":' % (self.members, place.how.encode(), node, reason)
        return middle, b',"wid":%b}' % canonical(place.wid)

    def repeated(self, place: Place) -> dict[str, Any]:
        """What outcomes repeat of every one of these actions; `action_target` differs."""
        entry = {"agent_id": self.draft.agent_id, "action_type": self.draft.action_type, "action_target": ""}
        return {**entry, "wid": place.wid, "node": place.node}


@dataclass(frozen=True, slots=True)
class Run:
    """Actions in the order in which they were done: their heads without the last brace, and the values in them."""

    common: Common
    heads: Sequence[bytes]
    parameters: Sequence[Mapping[str, Any]]
    targets: Sequence[str]

    def drafts(self) -> Iterator[ActionDraft]:
        """The actions one by one."""
        of_all = self.common.draft
        for parameters, target in zip(self.parameters, self.targets, strict=True):
            yield ActionDraft(
                of_all.agent_id,
                of_all.action_type,
                target,
                parameters,
                of_all.decision,
                of_all.reason,
                of_all.behaviors,
                of_all.execution_context,
                of_all.traceparent,
                of_all.audience,
                of_all.disclosures,
            )


@dataclass(frozen=True, slots=True)
class Receipts:
    """The receipts of `count` actions that are alike: each has a `seq` one higher, and was entered 1 µs later."""

    first: Receipt
    count: int

    def each(self) -> Iterator[Receipt]:
        """The receipts one by one."""
        seq, clock, same = self.first.seq, round(self.first.timestamp * 1e6), self.first[2:]
        for at in range(self.count):
            yield Receipt(seq + at, (clock + at) / 1e6, *same)


def encode(draft: ActionDraft) -> tuple[bytes, bytes]:
    """What an action may have in common with others, and its head. Raises FormatError if there is no canonical form."""
    head = canonical({"action_parameters": draft.action_parameters, "action_target": draft.action_target})
    common: dict[str, Any] = {
        "agent_id": draft.agent_id,
        "action_type": draft.action_type,
        "decision": draft.decision,
        "reason": draft.reason,
        "behaviors": draft.behaviors,
    }
    if draft.traceparent is not None:
        common["traceparent"] = draft.traceparent
    for name in _LISTS:
        if values := getattr(draft, name):
            common[name] = values
    try:
        return orjson.dumps(common), head
    except orjson.JSONEncodeError as e:
        raise FormatError(f"no JSON: {e}") from None


def parse_common(data: bytes) -> Common:
    """What a run has in common, from `encode`. Raises FormatError."""
    try:
        found = orjson.loads(data)
        draft = ActionDraft(**found, action_target="", action_parameters={})
    except (orjson.JSONDecodeError, TypeError) as e:
        raise FormatError(f"no actions: {e}") from None
    lists = [getattr(draft, name) for name in _LISTS if name in found]
    if _types([draft.behaviors, *lists]) != {list} or not _types(draft.behaviors) <= _DICT:
        raise FormatError("no actions: expected lists, and objects that say what behaviors said")
    texts = [text for values in (*lists, *(said.values() for said in draft.behaviors)) for text in values]
    texts += [found[name] for name in _TEXTS] + [draft.traceparent or ""]
    if _types(texts) != _STR or not all(name in said for said in draft.behaviors for name in _SAID):
        raise FormatError("no actions: expected texts, found something else")
    plain = (
        draft.decision == "allow"
        and draft.action_type != "delegation"
        and draft.traceparent is None
        and not any(lists)
        and bool(draft.behaviors)
        and all(said["result"] == "pass" for said in draft.behaviors)
    )
    members = {name: found[name] for name in ("action_type", "agent_id", "behaviors", "decision")}
    return Common(draft, plain, canonical(members)[1:-1])


def parse_run(common: Common, lines: bytes) -> Run:
    """The run whose heads are these lines. Raises FormatError unless each is canonical and says what a head says."""
    heads = lines.split(b"\n")
    try:
        values = [orjson.loads(head) for head in heads]
        parameters = [value["action_parameters"] for value in values]
        targets = [value["action_target"] for value in values]
    except (orjson.JSONDecodeError, LookupError, TypeError) as e:
        raise FormatError(f"no action: {e}") from None
    # No object is the beginning of another, so all are canonical if what they are joined to is.
    if (
        _types(parameters) != _DICT
        or _types(targets) != _STR
        or set(map(len, values)) != {2}
        or canonical(values) != b"[%b]" % lines.replace(b"\n", b",")
    ):
        raise FormatError("no action: expected the canonical form of its parameters and target")
    return Run(common, [head[:-1] for head in heads], parameters, targets)


def _types(values: Iterable[object]) -> set[type]:
    return set(map(type, values))
