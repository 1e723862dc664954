"""How entries and reports look to people. What agents wrote is never taken for markup or for terminal codes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from rich.table import Table
from rich.text import Text

from ..formats.plain import plain as plain
from ..verifier.report import LogReport

_COLOURS = {"allow": "green", "flag": "yellow", "hold": "yellow", "deny": "red"}
_VERDICTS = {"intact": "green", "bad": "red", "prefix_only": "yellow", "gap": "yellow", "missing": "yellow"}


def moment(timestamp: float) -> str:
    """A NumericDate in UTC to the millisecond, without the day."""
    return datetime.fromtimestamp(timestamp, UTC).strftime("%H:%M:%S.%f")[:-3]


def agent_name(agent_id: str) -> str:
    """An agent's name, or its whole ID where that is not of the usual form."""
    _, usual, name = agent_id.partition("/agent/")
    return plain(name if usual else agent_id)


def _cells(entry: dict[str, Any]) -> list[Text]:
    start = [
        Text(str(entry["seq"]), "bold"),
        Text(moment(entry["timestamp"]), "dim"),
        Text(agent_name(entry["agent_id"])),
    ]
    what = [Text.assemble((plain(entry["action_type"]), "dim"), " ", plain(entry["action_target"]))]
    if "outcome_of" in entry:
        outcome = entry["outcome"]
        ended = "passed on" if outcome.get("complete") else "no answer"  # messages and tunnels have no status
        shown = [f"{entry['outcome_of']}: {plain(outcome.get('status') or ended)}"]
        if "duration_ms" in outcome:
            shown.append(f"{outcome['duration_ms']:.0f} ms")
        error = [Text(plain(outcome["error"]), "yellow")] if outcome.get("error") else what
        return [*start, Text(", ".join(shown), "dim"), *error]
    decision = plain(entry["decision"])
    reason = "" if entry["reason"] == "allowed" else f" {plain(entry['reason'])}"
    if "decision_of" in entry:
        decision_of = f"{entry['decision_of']}: "
        line = Text.assemble(decision_of, (decision, _COLOURS.get(decision, "")), f"{reason}, {plain(entry['by'])}")
        return [*start, line, *what]
    if entry["reason"] == "monitor" and "agent" in entry["action_parameters"]:
        said = entry["action_parameters"]
        about = f"{said['agent']} by {said.get('by')}: {said.get('why')}"
        what = [Text.assemble((plain(entry["action_type"]), "dim"), " ", plain(about))]
    return [*start, Text.assemble((decision, _COLOURS.get(decision, "")), reason), *what]


def entry_table(entries: list[dict[str, Any]]) -> Table:
    """Entries for people; times are UTC, with the days they span in the title."""
    ends = (entries[0], entries[-1])
    days = dict.fromkeys(str(datetime.fromtimestamp(entry["timestamp"], UTC).date()) for entry in ends)
    title = " to ".join(days) + " UTC"
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", title=title, title_style="dim")
    table.add_column("seq", justify="right")
    table.add_column("time", no_wrap=True)
    table.add_column("agent", overflow="fold")
    table.add_column("decision, or outcome of", overflow="fold", min_width=24)
    table.add_column("action", overflow="fold", ratio=1)
    for entry in entries:
        table.add_row(*_cells(entry))
    return table


def entry_text(entry: dict[str, Any]) -> Text:
    """One entry on one line."""
    return Text("  ").join(_cells(entry))


def verdict(word: str) -> Text:
    """A verdict on a log, a file or a chain, or `missing`."""
    return Text(word.replace("_", " "), f"bold {_VERDICTS[word]}")


def log_verdicts(reports: Mapping[str, LogReport]) -> Iterator[Text]:
    """One line of each log, by the name of its file."""
    for name, report in reports.items():
        more = f": {report.problem}" if report.problem else f", {report.entries} entries, {report.bets} BETs"
        yield Text.assemble(verdict(report.verdict), plain(f" log {name}{more}"))


def report_table(report: LogReport) -> Table:
    """What was checked and what was found."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    if report.problem is not None:
        table.add_row("problem", Text(plain(report.problem), "red" if report.verdict == "bad" else "yellow"))
    rows = {
        "log": plain(report.origin) or "unknown",
        "entries": f"{report.entries} of {report.declared} read and in order; a signed root covers {report.proved}",
        "root": report.root,
        **_erased(report),
        "BETs": f"{report.bets} signed, in sequence and computed again"
        + _more(report.bets_beyond, "reach beyond the end"),
        "ECTs": f"{report.ects} minted here"
        + _more(report.ects_foreign, "of other monitors (see lictor chain verify)"),
        **_described(report),
        **_witnessed(report),
        "open": f"{report.uncovered} entries are under no BET of this file",
    }
    for name, value in rows.items():
        table.add_row(name, Text(value))
    return table


def _described(report: LogReport) -> dict[str, str]:
    if report.described is None:
        return {}
    told = "once" if report.descriptions == 1 else f"{report.descriptions} times"
    last = f"lictor {report.described.version}, package {report.described.package}"
    return {"monitor": plain(f"described itself {told} (last: {last}), and every BET names the one in force")}


def _witnessed(report: LogReport) -> dict[str, str]:
    by = plain(", ".join(report.witnesses))
    return {"witnessed": f"{report.witnessed} entries, by {by}"} if report.witnesses else {}


def _erased(report: LogReport) -> dict[str, str]:
    """What is gone, and what the log says why."""
    if not report.erased:
        return {}
    rules = [
        f"{plain(one.rule)} (up to entry {one.end - 1}: announced by entry {one.seq} at {moment(one.timestamp)} UTC)"
        for one in report.erased_under
    ]
    said = "; ".join(rules) or "not announced as far as the file goes"
    bets = _more(report.bets_erased, "BETs over them are signed, but cannot be computed again")
    return {"erased": f"entries 0 to {report.erased - 1}, of which the leaf hashes are left: {said}{bets}"}


def _more(count: int, what: str) -> str:
    return f"; {count} {what}" if count else ""
