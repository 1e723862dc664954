"""Whether the BETs of a log say what its entries say: every window is hashed, counted and judged again.

Entries are fed in log order; only the open windows are in memory, besides the BETs themselves.
"""

from __future__ import annotations

import math
from bisect import insort
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..evidence import bet
from ..evidence.bet import Bet
from ..evidence.claims import KeyResolver
from ..evidence.demand import PastWindow
from ..evidence.entry import OWN_TYPES, needs_judgement
from ..evidence.windows import AgentWindows, PolicyInfo, Window
from ..formats import base64url
from ..formats.canonical import digest
from .report import Found


@dataclass(slots=True)
class _Doubt:
    """How many of the entries of a window may or may not count as denied by default, or as not judged."""

    denied: int = 0
    unjudged: int = 0


class _Chain:
    """The BETs of one agent and policy that are still to be checked, and the window of the first of them."""

    def __init__(self) -> None:
        self.last: Bet | None = None
        self.bets: deque[Bet] = deque()
        self.window: Window | None = None
        self.doubt = _Doubt()


@dataclass(slots=True)
class _Demanded:
    """A BET on demand and its window. It is no part of a chain."""

    bet: Bet
    past: PastWindow


class _Agent:
    def __init__(self) -> None:
        self.chains: dict[str, _Chain] = {}
        self.demanded: list[_Demanded] = []
        """BETs on demand, by the start of their windows; those that are `open` take in entries."""
        self.open: list[_Demanded] = []
        self.windows = AgentWindows((), 0.0)
        self.until = -math.inf
        self.bare: int | None = None
        """The seq of its first entry that was in the window of no chain."""


class WindowCheck:
    """Raises `Found` at the first BET that does not hold."""

    def __init__(self, origin: str, resolve: KeyResolver) -> None:
        self.checked = 0
        """BETs whose window was recomputed."""
        self.uncovered = 0
        """Entries that are in the window of no BET of the file."""
        self.erased = 0
        """Set by the caller: how many entries at the beginning are not there to be fed."""
        self.unknowable = 0
        """BETs whose window had such entries."""
        self._first_time: float | None = None
        self._origin = origin
        self._monitor_id = f"spiffe://{origin}"
        self._resolve = resolve
        self._agents: dict[str, _Agent] = {}
        self._severities: dict[str, dict[str, str]] = {"": {}}
        self._roots: dict[int, list[Bet]] = {}

    def add_binding(self, document: Mapping[str, Any]) -> None:
        """A binding that BETs may name by its digest."""
        try:
            severities = {str(b["behavior_id"]): str(b.get("severity", "high")) for b in document["expected_behaviors"]}
        except (KeyError, TypeError, AttributeError):
            raise Found.bad("the binding cannot be read", "expected_behaviors with a behavior_id", "none") from None
        self._severities[digest(document)] = severities

    def add_bet(self, token: str, size: int) -> None:
        """A BET of the log, which has `size` entries. BETs of one agent and policy come in order."""
        one = bet.verify(token, self._resolve)
        self._check_claims(one, size)
        agent = self._agents.setdefault(one.subject, _Agent())
        self._roots.setdefault(one.ext["checkpoint_size"], []).append(one)
        if one.ext.get("trigger") == "demand":
            policy = self._window(one.subject, one.policy, one).policy
            past = PastWindow(one.subject, policy, one.start, self._severities)
            insort(agent.demanded, _Demanded(one, past), key=lambda demanded: -demanded.bet.start)
            return
        chain = agent.chains.setdefault(one.policy, _Chain())
        _check_follows(one, chain.last)
        chain.last = one
        chain.bets.append(one)

    def _check_claims(self, one: Bet, size: int) -> None:
        what = f"BET {one.jti}"
        for name, kind in (("first_seq", int), ("count", int), ("checkpoint_size", int), ("checkpoint_root", str)):
            if type(one.ext.get(name)) is not kind:
                raise Found.bad(f"{what} does not say where it lies in the log", f"ext.{name}", repr(one.ext.get(name)))
        if one.ext.get("log_origin") != self._origin or one.issuer.removeprefix("spiffe://") != self._origin:
            found = f"{one.ext.get('log_origin')} by {one.issuer}"
            raise Found.bad(f"{what} is of another log", self._origin, found)
        if one.ext.get("binding_digest") not in self._severities:
            raise Found.bad(f"the binding of {what} is not in the file", str(one.ext.get("binding_digest")), "none")
        if one.ext["first_seq"] + one.ext["count"] > one.ext["checkpoint_size"] or not one.ext["checkpoint_size"]:
            expected = f"at least {one.ext['first_seq'] + one.ext['count']} entries"
            raise Found.bad(f"{what} rests on too small a tree", expected, str(one.ext["checkpoint_size"]))
        if one.ext["checkpoint_size"] > size:
            raise Found.prefix(f"{what} rests on entries that are not there", one.ext["checkpoint_size"], size)

    def entry(self, seq: int, timestamp: float, data: bytes, entry: Mapping[str, Any]) -> None:
        """The next entry of the log. `data` are its canonical bytes."""
        if self._first_time is None:
            self._first_time = timestamp
        agent_id = entry["agent_id"]
        if agent_id == self._monitor_id and entry.get("action_type") in OWN_TYPES:
            return
        agent = self._agents.get(agent_id)
        if agent is None:
            self.uncovered += 1
            return
        if timestamp >= agent.until:
            self._advance(agent_id, agent, timestamp)
        if agent.demanded or agent.open:
            self._take_demanded(agent, seq, timestamp, data, entry)
        if not agent.windows.open:
            self.uncovered += not agent.open
            agent.bare = seq if agent.bare is None else agent.bare
        if not needs_judgement(entry):
            agent.windows.note(seq, data)
            return
        _note_doubt(agent, entry)
        agent.windows.action(seq, data, entry["behaviors"], entry["decision"])

    def resting_on(self, size: int) -> list[Bet]:
        """The BETs that rest on the first `size` entries."""
        return self._roots.get(size, [])

    def root(self, size: int, root: bytes, proved: int) -> None:
        """Compare the tree's root at `size` entries with the BETs that rest on it; `proved` entries are known good."""
        for one in self._roots.pop(size, ()):
            said, found = one.ext["checkpoint_root"], base64url.encode(root)
            if found != said:
                what = f"one of the entries {proved} to {size - 1} is not what BET {one.jti} rests on"
                raise Found.bad(what, f"root {said}", found, seq=proved)

    def wants_root(self, size: int) -> bool:
        """Whether a BET rests on the tree of this size."""
        return size in self._roots

    def finish(self, size: int) -> int:
        """The file ends after `size` entries: check what is complete. How many BETs reach further."""
        beyond = 0
        for agent_id, agent in self._agents.items():
            for policy, chain in agent.chains.items():
                while chain.bets and chain.bets[0].ext["checkpoint_size"] <= size:
                    self._close(chain, chain.window or self._window(agent_id, policy, chain.bets[0]))
                beyond += len(chain.bets)
            for demanded in (*agent.open, *reversed(agent.demanded)):
                if demanded.bet.ext["checkpoint_size"] <= size:
                    self._close_demanded(demanded)
                else:
                    beyond += 1
        return beyond

    def _take_demanded(self, agent: _Agent, seq: int, timestamp: float, data: bytes, entry: Mapping[str, Any]) -> None:
        while agent.demanded and agent.demanded[-1].bet.start <= timestamp:
            agent.open.append(agent.demanded.pop())
        for demanded in [one for one in agent.open if one.bet.end <= timestamp]:
            agent.open.remove(demanded)
            self._close_demanded(demanded)
        for demanded in agent.open:
            demanded.past.take(seq, data, entry)

    def _close_demanded(self, demanded: _Demanded) -> None:
        one, past = demanded.bet, demanded.past
        if self._is_unknowable(one):
            return
        said: object = one.ext.get("binding_versions", {one.ext["binding_digest"]: one.ext.get("binding_version")})
        if past.versions:
            self._equal(one, "binding_versions", said, past.versions)
            self._equal(one, "binding_digest", one.ext["binding_digest"], past.window.policy.digest)
        self._equal(one, "evaluation_mode", one.ext.get("evaluation_mode"), "on_demand")
        self._compare(one, past.window)

    def _window(self, agent_id: str, policy: str, one: Bet) -> Window:
        severities = self._severities[one.ext["binding_digest"]]
        info = PolicyInfo(policy, str(one.ext.get("binding_version")), one.ext["binding_digest"], severities)
        return Window(agent_id, info, one.start, 0, one.ext.get("prev_bet"))

    def _advance(self, agent_id: str, agent: _Agent, timestamp: float) -> None:
        """Close the windows that end by `timestamp`, open those that have begun."""
        agent.until = math.inf
        for policy, chain in agent.chains.items():
            while chain.bets and chain.bets[0].end <= timestamp:
                self._close(chain, chain.window or self._window(agent_id, policy, chain.bets[0]))
            if not chain.bets:
                continue
            first = chain.bets[0]
            if first.start <= timestamp and chain.window is None:
                _check_bare(first, agent.bare)
                chain.window = self._window(agent_id, policy, first)
            agent.until = min(agent.until, first.end if chain.window is not None else first.start)
        agent.windows.set([chain.window for chain in agent.chains.values() if chain.window is not None])

    def _close(self, chain: _Chain, window: Window) -> None:
        one = chain.bets.popleft()
        chain.window = None
        if self._is_unknowable(one):
            chain.doubt = _Doubt()
            return
        window.default_denied = self._within(one, "default_denied", window.default_denied, chain.doubt.denied)
        window.unjudged = self._within(one, "unjudged", window.unjudged, chain.doubt.unjudged)
        chain.doubt = _Doubt()
        self._compare(one, window)

    def _compare(self, one: Bet, window: Window) -> None:
        """The BET says what its window has."""
        shown, _ = bet.details(window.tallies, window.policy.severities)
        size = one.ext["checkpoint_size"]
        self._equal(one, "count", one.ext["count"], window.count)
        self._equal(one, "first_seq", one.ext["first_seq"], window.first_entry if window.count else size)
        self._equal(one, "bhv_evidence", one.evidence, window.evidence())
        for name, counted in (("default_denied", window.default_denied), ("unjudged", window.unjudged)):
            self._equal(one, name, one.ext.get(name, 0), counted)
        self._equal(one, "bhv_details", [dict(item) for item in one.details], shown)
        self._equal(one, "bhv_result", one.result, window.result())
        self.checked += 1

    def _is_unknowable(self, one: Bet) -> bool:
        """Whether entries of the window were erased: it began before the first that is there, and says so itself."""
        early = self._first_time is None or one.start < self._first_time
        if not (early and one.ext["count"] and one.ext["first_seq"] < self.erased):
            return False
        self.unknowable += 1
        return True

    def _within(self, one: Bet, name: str, counted: int, doubtful: int) -> int:
        """What the BET says, if the entries leave that open."""
        said: object = one.ext.get(name, 0)
        if type(said) is int and counted - doubtful <= said <= counted:
            return said
        self._equal(one, name, said, counted)
        return counted

    def _equal(self, one: Bet, name: str, said: object, found: object) -> None:
        if said != found:
            what = f"{name} of BET {one.jti} ({one.subject}, {one.policy}) is not what the log has"
            raise Found.bad(what, str(said), str(found), seq=one.ext["first_seq"])


def _check_follows(one: Bet, last: Bet | None) -> None:
    """Windows of one agent and policy are contiguous; a first one, and one after a pause, names no BET before it."""
    prev = one.ext.get("prev_bet")
    what = f"a BET of {one.subject} under {one.policy} is missing before BET {one.jti}"
    if prev is None:
        if last is not None and one.start < last.end:
            raise Found.bad(f"BET {one.jti} overlaps the one before it", f"start {last.end}", f"start {one.start}")
    elif last is None or prev != last.jti:
        raise Found.gap(what, str(prev), last.jti if last else "none", seq=one.ext["first_seq"])
    elif one.start != last.end:
        raise Found.gap(what, f"start {last.end}", f"start {one.start}", seq=one.ext["first_seq"])


def _check_bare(one: Bet, bare: int | None) -> None:
    """An agent always has a window: what is in none is at the end, where the windows are still open."""
    if bare is not None:
        what = f"an entry of {one.subject} is in the window of no BET, although BET {one.jti} is of a later one"
        raise Found.gap(what, f"a BET over entry {bare}", "none", seq=bare)


def _note_doubt(agent: _Agent, entry: Mapping[str, Any]) -> None:
    """A verdict of a policy of which the file has no BET at that time: its window may have been open, or not.

    It was not if a BET of the policy begins later. Otherwise an action that it judged counts as judged if the window
    was open when the file was made, and as not judged if bindings were exchanged while the action was on its way.
    """
    known = [said for said in entry["behaviors"] if agent.windows.get(said["policy_id"]) is not None]
    if len(known) == len(entry["behaviors"]):
        return
    unknown = [said for said in entry["behaviors"] if _may_be_open(agent, said["policy_id"])]
    if entry["decision"] == "deny":
        denied = any(said["result"] != "pass" for said in unknown) and all(said["result"] == "pass" for said in known)
        unjudged = False
    else:
        denied, unjudged = False, bool(unknown) and not known
    if denied or unjudged:
        for chain in agent.chains.values():
            if chain.window is not None:
                chain.doubt.denied += denied
                chain.doubt.unjudged += unjudged


def _may_be_open(agent: _Agent, policy: str) -> bool:
    chain = agent.chains.get(policy)
    return agent.windows.get(policy) is None and (chain is None or not chain.bets)
