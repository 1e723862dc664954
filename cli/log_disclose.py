"""`lictor log disclose`, `verify-disclosure`: one entry for an auditor, with its proof and nothing of the others."""

from __future__ import annotations

import json
import os
from contextlib import closing
from pathlib import Path

import click
from rich.table import Table
from rich.text import Text

from ..evidence.disclosure import Disclosure, covering, disclose
from ..evidence.salted import open_disclosure
from ..evidence.sqlite_store import SqliteReader
from ..formats.errors import UsageError
from ..verifier.disclosure import DisclosureReport, check_disclosure
from .evidence_view import when
from .log_check import check_file
from .log_options import FILE, find_ledger, ledger_option, policy_options, read_policy
from .log_view import plain
from .output import console, json_option, print_json
from .trusted import find_trust, trust_options


@click.command("disclose")
@click.argument("seq", type=click.IntRange(min=0))
@click.option("--field", "fields", multiple=True, metavar="NAME", help="Show this kept value too; may be repeated.")
@click.option("--bet", "jti", metavar="JTI", help="Show that the entry is in the window of this BET.")
@click.option("-o", "--out", type=FILE, required=True, help="The file to write.")
@ledger_option
@json_option
def make(
    seq: int,
    fields: tuple[str, ...],
    jti: str | None,
    out: Path,
    config: Path,
    ledger: Path | None,
    as_json: bool,
) -> None:
    """Write entry SEQ with the proof that it is in the log, for somebody who is to see nothing else.

    Kept values of the entry are shown only where --field names them, such as /arguments/path.
    """
    with closing(SqliteReader(find_ledger(config, ledger))) as reader, reader.snapshot():
        shown = disclose(reader, seq, fields, jti)
        names = sorted(open_disclosure(text).name for text in reader.disclosures(seq))
        bets = covering(reader, seq)
    _write(out, shown)
    if as_json:
        print_json({"ok": True, "file": str(out), "seq": seq, "fields": list(fields), "kept": names, "bets": bets})
        return
    table = Table.grid(padding=(0, 2))
    table.add_row("wrote", Text(str(out)))
    hidden = [name for name in names if name not in fields]
    table.add_row("not shown", Text(plain(", ".join(hidden)) or "the entry keeps no other values"))
    if jti is None:
        table.add_row("BETs", Text(f"none shown; its windows: {', '.join(bets) or 'not closed yet'}"))
    console.print(table)


def _write(out: Path, shown: Disclosure) -> None:
    """For the owner's eyes only, until the owner gives it away."""
    try:
        with open(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as f:
            f.write(shown.text())
    except OSError as e:
        raise UsageError(f"{out} cannot be written: {e.strerror}") from None


@click.command("verify-disclosure")
@click.argument("path", metavar="FILE", type=FILE)
@trust_options
@policy_options
@json_option
@click.pass_context
def check(
    ctx: click.Context,
    path: Path,
    trust: Path | None,
    config: Path,
    bundles: tuple[Path, ...],
    witnesses: tuple[Path, ...],
    quorum: int | None,
    as_json: bool,
) -> None:
    """Verify what `lictor log disclose` wrote, from the file alone. Exit 0 good, 1 not."""
    policy, ca = read_policy(witnesses, quorum), find_trust(trust, config, bundles).ca_pem
    check_file(ctx, path, as_json, lambda text: check_disclosure(text, ca, policy), _table)


def _table(report: DisclosureReport) -> Table:
    table = Table.grid(padding=(0, 2))
    proof, entry = report.proof, report.entry
    table.add_row("log", Text(plain(proof.origin)))
    table.add_row("checkpoint", f"{proof.size} entries, root {proof.root}")
    if proof.witnesses:
        table.add_row("witnesses", Text(plain(", ".join(proof.witnesses))))
    table.add_row("entry", f"{proof.index} of {when(entry['timestamp'])} UTC")
    for name in ("agent_id", "action_type", "action_target", "decision", "reason"):
        if name in entry:
            table.add_row(name, Text(plain(entry[name])))
    for one in report.opened:
        table.add_row(Text(plain(one.name)), Text(plain(json.dumps(one.value, ensure_ascii=False))))
    if report.hidden:
        table.add_row("not shown", f"{report.hidden} kept values")
    if report.bet is not None:
        one_bet = report.bet
        table.add_row("BET", Text(plain(f"{one_bet.jti}: {one_bet.result} under {one_bet.policy}")))
        table.add_row("window", f"{when(one_bet.start)} to {when(one_bet.end)} UTC, {one_bet.ext['count']} entries")
        table.add_row("", "the window is signed to reach over this entry; the others were not shown to count them")
    return table
