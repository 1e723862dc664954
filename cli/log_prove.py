"""`lictor log prove`, `check-proof`, `key`: proofs that an outsider can check from a file."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import click
from rich.table import Table
from rich.text import Text

from ..certs.domain import TrustDomain
from ..certs.evidence_keys import evidence_jwk
from ..evidence.checkpoint import Verifier
from ..evidence.proof_files import prove_consistency, prove_inclusion
from ..evidence.sqlite_store import SqliteReader
from ..formats.errors import LictorError, UsageError
from ..formats.keys import from_jwk
from ..proxy.config import load
from ..verifier.proof import ProofReport, check_proof
from .log_check import check_file
from .log_options import FILE, find_ledger, ledger_option, policy_options, read_policy
from .log_view import plain
from .output import json_option, print_json, print_or_write
from .trusted import find_trust, trust_options

_SIZE = click.IntRange(min=1)


@click.command()
@click.argument("seq", type=click.IntRange(min=0), required=False)
@click.option("--at", type=_SIZE, metavar="SIZE", help="Under the checkpoint of this size.")
@click.option("--from", "old", type=_SIZE, metavar="SIZE", help="Prove that the log only grew from this size on.")
@click.option("--to", "new", type=_SIZE, metavar="SIZE", help="Up to this size; without it, to the log's end.")
@click.option("-o", "--out", type=FILE, help="Write the proof to this file and not to the standard output.")
@ledger_option
def prove(
    seq: int | None,
    at: int | None,
    old: int | None,
    new: int | None,
    out: Path | None,
    config: Path,
    ledger: Path | None,
) -> None:
    """Prove that entry SEQ is in the log (a C2SP tlog-proof), or with --from that the log only grew (JSON).

    The proof of an entry holds the whole entry. SIZE must be one of which a signed checkpoint was kept: every BET rests
    on one, witnesses sign some, and the whole log has one.
    """
    if (seq is None) == (old is None) or (at is not None and seq is None) or (new is not None and old is None):
        raise UsageError("say either `prove SEQ [--at SIZE]` or `prove --from SIZE [--to SIZE]`")
    with closing(SqliteReader(find_ledger(config, ledger))) as reader, reader.snapshot():
        if seq is not None:
            text = prove_inclusion(reader, seq, at).text()
        else:
            assert old is not None
            text = prove_consistency(reader, old, new).text()
    print_or_write(text, out)


@click.command("check-proof")
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
    """Check a proof that `lictor log prove` wrote, from the file alone. Exit 0 good, 1 not."""
    policy, ca = read_policy(witnesses, quorum), find_trust(trust, config, bundles).ca_pem
    check_file(ctx, path, as_json, lambda text: check_proof(text, ca, policy), _table)


def _table(report: ProofReport) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_row("log", Text(plain(report.origin)))
    table.add_row("checkpoint", f"{report.size} entries, root {report.root}")
    if report.witnesses:
        table.add_row("witnesses", Text(plain(", ".join(report.witnesses))))
    if report.entry is not None:
        entry = report.entry
        table.add_row("entry", str(report.index))
        for name in ("agent_id", "action_type", "action_target", "decision"):
            if name in entry:
                table.add_row(name, Text(plain(entry[name])))
    else:
        signed = "signed" if report.old_signed else "no signature of its own: compare it with what you hold"
        table.add_row("continues", f"{report.old_size} entries, root {report.old_root} ({signed})")
    return table


@click.command("key")
@click.option("-c", "--config", type=FILE, default=Path("lictor.toml"), show_default=True, help="Configuration.")
@json_option
def key(config: Path, as_json: bool) -> None:
    """Print the log's verifier key (C2SP signed-note), which a witness needs to know the log."""
    loaded = load(config)
    name = loaded.monitor.name
    try:
        cert = TrustDomain.open(loaded.identity.trust).monitor(name).evidence_cert
        public = from_jwk(evidence_jwk(cert.read_bytes()))
    except (LictorError, OSError) as e:
        raise UsageError(str(e)) from None
    vkey = str(Verifier.of(f"{loaded.monitor.trust_domain}/monitor/{name}", public))
    if as_json:
        print_json({"ok": True, "key": vkey})
    else:
        click.echo(vkey)
