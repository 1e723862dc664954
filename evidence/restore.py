"""Taking up the open windows of a log where the process before left them: from their rows and the entries since.

An action entry says which binding judged it (`behaviors`), so a window whose binding was changed while nothing ran
keeps the version and digest that its entries were judged by.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ..formats import strict_json
from ..formats.errors import LedgerError
from .entry import needs_judgement
from .store import ALTERED, Reader, WindowRow
from .windows import ASIDE, ENDED, AgentWindows, PolicyInfo, Window

Policies = Callable[[str], tuple[PolicyInfo, ...]]


def restore(stored: Reader, policies: Policies) -> dict[str, AgentWindows]:
    """The windows that were open, by agent, with their entries taken in. Raises LedgerError for what cannot be."""
    agents = _open_windows(stored, policies)
    first = min((w.first_seq for windows in agents.values() for w in windows.open), default=None)
    if first is None:
        return agents
    severities = {row.id: severities_of(row.data) for row in stored.documents("binding")}
    for seq, data in stored.entries(first):
        entry = strict_json.loads_object(data)
        windows = agents.get(entry["agent_id"])
        if windows is not None:
            _take_in(windows, seq, data, entry, severities)
    return agents


def _open_windows(stored: Reader, policies: Policies) -> dict[str, AgentWindows]:
    found: dict[str, list[WindowRow]] = {}
    head = stored.head()
    for row in stored.windows():
        if row.first_seq not in (ENDED, ASIDE):
            _check(row, head.size if head is not None else 0)
            found.setdefault(row.agent_id, []).append(row)
    return {agent_id: AgentWindows(opened(policies(agent_id), rows), 0.0) for agent_id, rows in found.items()}


def _check(row: WindowRow, size: int) -> None:
    """A window that began where there is no entry yet would hide what comes until then from its BETs."""
    if not (type(row.first_seq) is int and 0 <= row.first_seq <= size and type(row.start) is float):
        what = f"the window of {row.agent_id} under {row.policy_id} began at {row.start!r} with entry {row.first_seq!r}"
        raise LedgerError(f"the ledger says that {what}, of {size}: {ALTERED}")


def opened(policies: Iterable[PolicyInfo], rows: Iterable[WindowRow]) -> list[Window]:
    """The windows of these rows, without entries; of a policy that applies no longer nothing is known but its name."""
    known = {policy.policy_id: policy for policy in policies}
    return [
        Window(
            row.agent_id,
            known.get(row.policy_id) or PolicyInfo(row.policy_id, "", "", {}),
            row.start,
            row.first_seq,
            row.prev_bet,
        )
        for row in rows
    ]


def severities_of(document: bytes) -> dict[str, str]:
    """The severity of each behavior of a binding that the log keeps."""
    behaviors = strict_json.loads_object(document)["expected_behaviors"]
    return {behavior["behavior_id"]: behavior.get("severity", "high") for behavior in behaviors}


def _take_in(
    windows: AgentWindows, seq: int, data: bytes, entry: dict[str, Any], severities: dict[str, dict[str, str]]
) -> None:
    windows.wid, windows.node = entry["wid"], entry["node"]
    if not needs_judgement(entry):
        windows.note(seq, data)
        return
    windows.action(seq, data, entry["behaviors"], entry["decision"])
    for said in entry["behaviors"]:
        window = windows.get(said["policy_id"])
        digest = said["binding"]
        if window is not None and window.first_seq <= seq and digest != window.policy.digest:
            window.policy = PolicyInfo(said["policy_id"], said["version"], digest, severities.get(digest, {}))
