"""Judges the actions of a log by other bindings, in the order of the log.

What has no memory is judged exactly, by the time of the entry. What has one remembers what the other bindings would
have let out, and of what they could not judge what was let out then. A member of a batch is judged by itself.
What was held and would be again gets the decision that it got then. Nobody is put in quarantine by a replay.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ..formats.errors import FormatError
from ..formats.names import parse_url
from .apart import Rule, Rules, judge_at
from .catalog import Catalog
from .handed import Handed, handed_of
from .learning import judged_by_bindings
from .model import Action, ActionType, Binding, Decision, Verdict
from .patterns import UrlPattern
from .policy import AUDIT, Policy

MAX_OPEN = 1 << 16
"""Actions that are denied now and whose recorded outcome is awaited, so that it does not count."""
OPENS = "open"
"""What becomes of a CONNECT that was denied: what would have come through the tunnel is not known."""
_OF_MEMORIES = frozenset(("rate_exceeded", "budget_exhausted", "missing_predecessor", "forbidden_after"))
_BATCH = "batch_member_denied"
_DECISIONS = frozenset(verdict.value for verdict in Verdict)
_LET_OUT = frozenset((Verdict.ALLOW.value, Verdict.FLAG.value))


class Memory(Protocol):
    """What remembers a log: `proxy.state.Book`."""

    def judge(
        self, agent_id: str, type_: str, target: str, wid: str, now: float, handed: Handed | None = None
    ) -> Decision | None:
        """What the behaviors with a memory say; None if none observes the action."""

    def take(self, entry: Mapping[str, Any], seq: int, timestamp: float) -> None:
        """An entry, with the decision that counts."""


@dataclass(frozen=True, slots=True)
class Change:
    """An action that would be decided otherwise. `after` is a verdict, or `OPENS`."""

    seq: int
    agent_id: str
    action_type: str
    action_target: str
    before: str
    after: str
    reason_before: str
    reason_after: str


@dataclass(frozen=True, slots=True)
class _Judgement:
    """`decision` None: it cannot be told, and `reason` says why not."""

    decision: str | None
    reason: str


class Replay:
    """One replay. `judged`, `changed` and `not_judged` count actions of the agent that is asked about."""

    def __init__(
        self, bindings: Sequence[Binding], memory: Memory, catalog: Catalog | None = None, agent: str | None = None
    ) -> None:
        """Without a `catalog` a denied CONNECT cannot be judged. `agent`: a SPIFFE ID, the last part of one, or all."""
        self._rules = Rules(bindings)
        self._policy = Policy(bindings, catalog) if catalog is not None else None
        self._memory = memory
        self._agent = agent
        self._denied: dict[int, None] = {}
        self._held: dict[int, None] = {}
        self.judged = 0
        self.changed: Counter[str] = Counter()
        self.not_judged: Counter[str] = Counter()

    def take(self, entry: Any, seq: int) -> Change | None:
        """The next entry of the log, whatever it is; the change if there is one."""
        if isinstance(entry, dict) and "outcome_of" in entry:
            self._outcome(entry, seq)
            return None
        if isinstance(entry, dict) and "decision_of" in entry:
            self._decided(entry, seq)
            return None
        if not _is_action(entry):
            if not _is_own(entry):
                self.not_judged["malformed"] += 1
            return None
        parameters = entry["action_parameters"]
        agent = parameters["peer"] if parameters.get("direction") == "inbound" else entry["agent_id"]
        judgement = self._judge(agent, entry)
        before = entry["decision"]
        self._remember(entry, seq, judgement.decision or before)
        if self._agent is not None and agent != self._agent and not agent.endswith(f"/{self._agent}"):
            return None
        if judgement.decision is None:
            self.not_judged[judgement.reason] += 1
            return None
        self.judged += 1
        inbound = parameters.get("direction") == "inbound"  # of these the log does not say which were flagged
        if judgement.decision == before or (inbound and {judgement.decision, before} <= _LET_OUT):
            return None
        self.changed[f"{before} to {judgement.decision}"] += 1
        return Change(
            seq,
            agent,
            entry["action_type"],
            entry["action_target"],
            before,
            judgement.decision,
            entry["reason"],
            judgement.reason,
        )

    def _judge(self, agent: str, entry: Mapping[str, Any]) -> _Judgement:
        reason, parameters = entry["reason"], entry["action_parameters"]
        if reason == _BATCH:
            return _Judgement(None, "batch")
        if not judged_by_bindings(entry) and reason not in _OF_MEMORIES:
            return _Judgement(None, "refused_by_the_monitor")
        if parameters.get("method") == "CONNECT":
            return self._connect(agent, entry["action_target"])
        return self._action(agent, entry)

    def _action(self, agent: str, entry: Mapping[str, Any]) -> _Judgement:
        type_, target, time = ActionType(entry["action_type"]), entry["action_target"], entry["timestamp"]
        rules = [rule for rule in self._rules.of(agent, type_) if rule.is_about(target)]
        if not rules:
            return _Judgement("deny", "default_deny")
        verdict, reason, unknown = Verdict.ALLOW, "allowed", False
        for rule in rules:
            failed = _failed(rule, agent, entry)
            unknown = unknown or failed is None
            if failed and rule.effect.weight > verdict.weight:
                verdict, reason = rule.effect, (AUDIT if rule.binding.mode == "audit" else "") + failed
        handed = handed_of(entry["action_parameters"]) if type_ is ActionType.DELEGATION else None
        said = self._memory.judge(agent, type_.value, target, entry["wid"], time, handed)
        if said is not None and said.verdict.weight > verdict.weight:
            verdict, reason = said.verdict, said.reason
        if unknown and verdict is not Verdict.DENY:
            return _Judgement(None, "parameters_not_kept")
        return _Judgement(verdict.value, reason)

    def _connect(self, agent: str, target: str) -> _Judgement:
        """A CONNECT that its authority alone decided."""
        if self._policy is None:
            return _Judgement(None, "connect")
        places = _authorities(self._policy.catalog, target)
        decisions = [self._policy.judge_authority(agent, *place) for place in places]
        denials = [decision for decision in decisions if decision is not None]
        if not decisions or 0 < len(denials) < len(decisions):
            return _Judgement(None, "connect")
        return _Judgement("deny", denials[0].reason) if denials else _Judgement(OPENS, "allowed")

    def _remember(self, entry: Mapping[str, Any], seq: int, decision: str) -> None:
        if decision in _LET_OUT:
            self._memory.take({**entry, "decision": decision}, seq, entry["timestamp"])
        elif entry["decision"] == decision == Verdict.HOLD:
            _keep(self._held, seq)
        elif entry["decision"] != Verdict.DENY:
            _keep(self._denied, seq)

    def _decided(self, entry: Mapping[str, Any], seq: int) -> None:
        """What became of an action that was held. It counts for the memories if it is still held, and was let out."""
        of = entry["decision_of"]
        if type(of) is not int or not _is_action(entry):
            self.not_judged["malformed"] += 1
        elif of in self._held:
            del self._held[of]
            self._memory.take(entry, seq, entry["timestamp"])

    def _outcome(self, entry: Mapping[str, Any], seq: int) -> None:
        of, outcome = entry["outcome_of"], entry.get("outcome")
        if type(of) is not int or not isinstance(outcome, dict) or not _is_named(entry):
            self.not_judged["malformed"] += 1
        elif of in self._denied:
            del self._denied[of]
        elif all(type(outcome.get(name, 0)) is int for name in ("request_bytes", "response_bytes")):
            self._memory.take(entry, seq, entry["timestamp"])


def _keep(seqs: dict[int, None], seq: int) -> None:
    seqs[seq] = None
    if len(seqs) > MAX_OPEN:
        del seqs[next(iter(seqs))]


def _authorities(catalog: Catalog, target: str) -> list[tuple[str, int]]:
    """Where a CONNECT that is recorded with this target may have led; nothing if the catalog does not say."""
    if not target.startswith("urn:"):
        try:
            url = parse_url(target)
        except FormatError:
            return []
        return [(url.host, url.port)]
    patterns = [UrlPattern.parse(text) for known in catalog.targets if known.urn == target for text in known.match]
    return [] if any(p.any_subdomain for p in patterns) else [(p.host, p.port) for p in patterns]


def _failed(rule: Rule, agent: str, entry: Mapping[str, Any]) -> str | None:
    """The reason, or "" if it is satisfied or needs a memory, or None if it looks at what was not kept."""
    compiled, parameters = rule.stateless, entry["action_parameters"]
    if compiled is None:
        return ""
    if compiled.reads == "body" or (compiled.reads == "query" and "query_digest" in parameters):
        return None
    content = {"method": parameters["method"]} if "method" in parameters else None
    if compiled.reads == "query" and content is None:
        return None
    action = Action(agent, ActionType(entry["action_type"]), entry["action_target"], parameters, content)
    return judge_at(compiled, action, entry["timestamp"]).reason


def _is_named(entry: Mapping[str, Any]) -> bool:
    texts = ("agent_id", "action_type", "action_target", "wid")
    return all(isinstance(entry.get(name), str) for name in texts) and _is_time(entry.get("timestamp"))


def _is_time(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < 1 << 36


def _is_action(entry: Any) -> bool:
    if not isinstance(entry, dict) or not _is_named(entry) or entry["action_type"] not in ActionType:
        return False
    parameters = entry.get("action_parameters")
    decision, reason = entry.get("decision"), entry.get("reason")
    if not (isinstance(parameters, dict) and isinstance(decision, str) and isinstance(reason, str)):
        return False
    if decision not in _DECISIONS:
        return False
    return parameters.get("direction") != "inbound" or isinstance(parameters.get("peer"), str)


def _is_own(entry: Any) -> bool:
    """An entry of the monitor about itself."""
    return isinstance(entry, dict) and entry.get("reason") == "monitor" and entry.get("agent_id") is not None
