"""BETs on demand: over any window of the past, computed again from the log.

They stand beside the chain of windows: they name no BET before them, may overlap, and are judged from the entries
alone. Several versions of a binding may have judged in such a window. Then the BET names the last, lists all in
`ext.binding_versions`, and a behavior is critical if it was in any of them.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from typing import Any

import orjson

from ..formats.canonical import canonical
from ..formats.errors import UsageError
from .entry import needs_judgement
from .issuer import Issuer
from .ledger import Ledger
from .lineage import Place
from .restore import Policies, severities_of
from .retention import first_since
from .store import Reader
from .windows import DEFAULT_DENY, PolicyInfo, Window

Severities = Mapping[str, Mapping[str, str]]
"""The severity of each behavior, by the digest of the binding."""
_BLOCK = 4096


class PastWindow:
    """The entries of one agent from `start` on, under one policy. `policy` is what it names if nothing judged."""

    def __init__(self, agent_id: str, policy: PolicyInfo, start: float, severities: Severities) -> None:
        self.window = Window(agent_id, policy, start, 0, None)
        self.versions: dict[str, str] = {}
        self._severities = severities

    def take(self, seq: int, data: bytes, entry: Mapping[str, Any]) -> None:
        """The agent's next entry; `data` are its canonical bytes."""
        window = self.window
        window.add(seq, data)
        if not needs_judgement(entry):
            return
        decision = entry["decision"]
        violated = False
        for said in entry["behaviors"]:
            failed = said["result"] != "pass"
            violated |= failed
            if said["policy_id"] == window.policy.policy_id:
                self._judged_by(said["binding"], said["version"])
                window.judge(said["behavior_id"], said["result"], decision)
        if decision == "deny":
            window.default_denied += not violated
        else:
            window.unjudged += not entry["behaviors"]

    def _judged_by(self, digest: str, version: str) -> None:
        if digest == next(reversed(self.versions), None):
            return
        self.versions.pop(digest, None)
        before = self.window.policy.severities if self.versions else {}
        merged = {**before, **self._severities.get(digest, {})}
        merged |= {name: "critical" for name, severity in before.items() if severity == "critical"}
        self.versions[digest] = version
        self.window.policy = PolicyInfo(self.window.policy.policy_id, version, digest, merged)


class Demands:
    """Issues BETs on demand for a running monitor. `open_reader` opens what is durable, for use in another thread."""

    def __init__(
        self, ledger: Ledger, issuer: Issuer, policies_for: Policies, open_reader: Callable[[], Reader]
    ) -> None:
        self._ledger = ledger
        self._issuer = issuer
        self._policies_for = policies_for
        self._open_reader = open_reader
        self._one = asyncio.Lock()

    async def issue(
        self, agent_id: str, policy_id: str | None = None, start: float | None = None, end: float | None = None
    ) -> tuple[str, ...]:
        """One BET of `policy_id`, or of each policy that applies, over `start` <= t < `end` (NumericDates).

        Without `start` from the agent's first entry on (of those not erased), without `end` until now. Raises
        UsageError for what cannot be.
        """
        async with self._one:
            now = self._ledger.now()
            if end is None:
                end = now
            if end > now:
                raise UsageError(f"the window ends at {end:f}, which is to come; it is {now:f}")
            if start is not None and start >= end:
                raise UsageError(f"the window is reversed or empty: from {start:f} to {end:f}")
            await self._ledger.commit()
            found, place = await asyncio.to_thread(self._read, agent_id, policy_id, start, end)
            tokens = tuple(
                self._issuer.issue_past(past.window, place, end, self._ledger.now(), past.versions) for past in found
            )
            await self._ledger.commit()
            return tokens

    def _read(
        self, agent_id: str, policy_id: str | None, start: float | None, end: float
    ) -> tuple[list[PastWindow], Place]:
        with closing(self._open_reader()) as reader:
            head = reader.head()
            size = head.size if head is not None else 0
            last = first_since(reader, size, end)
            first = reader.erased() if start is None else first_since(reader, size, start)
            if start is not None and first == reader.erased() > 0 and _time(reader, first) > start:
                raise UsageError(f"the entries before {first} are erased, so nothing can be said of {start:f}")
            severities = {row.id: severities_of(row.data) for row in reader.documents("binding")}
            policies = self._policies(reader, agent_id, policy_id)
            found: list[PastWindow] = []
            entry: dict[str, Any] | None = None
            for seq, data, entry in _of_agent(reader.entries(first, last), agent_id):
                begin = entry["timestamp"] if start is None else start
                found = found or [PastWindow(agent_id, policy, begin, severities) for policy in policies]
                for past in found:
                    past.take(seq, data, entry)
            if not found and start is not None:
                found = [PastWindow(agent_id, policy, start, severities) for policy in policies]
                entry = _nearest(reader, agent_id, first, size)
            if entry is None:
                raise UsageError(f"the log holds no entry of {agent_id} {'at all' if start else f'before {end:f}'}")
            return found, Place(entry["wid"], entry["node"], "inferred")

    def _policies(self, reader: Reader, agent_id: str, policy_id: str | None) -> list[PolicyInfo]:
        """Those in force for the agent, or the one that is asked for, which may be in force no longer."""
        in_force = self._policies_for(agent_id) or (DEFAULT_DENY,)
        if policy_id is None:
            return list(in_force)
        known = {DEFAULT_DENY.policy_id: DEFAULT_DENY}
        for row in reader.documents("binding"):
            document = orjson.loads(row.data)
            info = PolicyInfo(document["policy_id"], document["version"], row.id, severities_of(row.data))
            known[info.policy_id] = info
        known |= {policy.policy_id: policy for policy in in_force}
        if policy_id not in known:
            raise UsageError(f"this log has no binding of the policy {policy_id}; it has {', '.join(sorted(known))}")
        return [known[policy_id]]


def _of_agent(entries: Iterable[tuple[int, bytes]], agent_id: str) -> Iterator[tuple[int, bytes, dict[str, Any]]]:
    """The entries of one agent, parsed; those of others are not."""
    member = canonical({"agent_id": agent_id})[1:-1]
    for seq, data in entries:
        if member in data:
            entry = orjson.loads(data)
            if entry["agent_id"] == agent_id:
                yield seq, data, entry


def _time(reader: Reader, seq: int) -> float:
    """When entry `seq` was made; beyond the end of the log, never."""
    return next((float(orjson.loads(data)["timestamp"]) for _, data in reader.entries(seq, seq + 1)), math.inf)


def _nearest(reader: Reader, agent_id: str, seq: int, size: int) -> dict[str, Any] | None:
    """The agent's last entry before `seq`, else its first one after."""
    for end in range(seq, 0, -_BLOCK):
        block = [entry for _, _, entry in _of_agent(reader.entries(max(0, end - _BLOCK), end), agent_id)]
        if block:
            return block[-1]
    return next((entry for _, _, entry in _of_agent(reader.entries(seq, size), agent_id)), None)
