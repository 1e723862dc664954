"""`lictor federation`: the trust bundle that partners exchange, and what it says."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from ..certs.bundle import Bundle, make_bundle, read_bundle
from ..certs.domain import TrustDomain
from ..formats.errors import VerificationError
from .agent import trust_option
from .output import console, errors, json_option, print_json, print_or_write


@click.group()
def command() -> None:
    """Trust bundles, which trust domains exchange to take each other's evidence: export, show."""


@command.command()
@click.option("--out", type=click.Path(path_type=Path), help="Write the bundle here, not to standard output.")
@trust_option
def export(out: Path | None, trust: Path) -> None:
    """Write this trust domain's bundle: its CA, its revocation list, its monitors' evidence keys; nothing secret.

    Give it to the partner in a way in which nobody can exchange it, and again whenever something in it has changed.
    """
    domain = TrustDomain.open(trust)
    print_or_write(json.dumps(make_bundle(domain), indent=2) + "\n", out)
    if out is not None:
        errors.print(f"wrote {out}, the trust bundle of {domain.name}; compare with the partner:", markup=False)
        errors.print(_table(read_bundle(out)))


@command.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@json_option
@click.pass_context
def show(ctx: click.Context, bundle: Path, as_json: bool) -> None:
    """Verify a trust bundle and say what is in it. Exit 1 if it cannot be relied on, now or at all."""
    found: Bundle | None = None
    problem = ""
    try:
        found = read_bundle(bundle)
        found.check_current(datetime.now(UTC))
    except VerificationError as e:
        problem = str(e)
    if as_json:
        print_json({"ok": not problem, "problem": problem or None, **(_json(found) if found else {})})
    else:
        if found is not None:
            console.print(_table(found))
        if problem:
            console.print(Text.assemble(("bad", "bold red"), f"  {problem}"))
    ctx.exit(1 if problem else 0)


def _json(bundle: Bundle) -> dict[str, Any]:
    return {
        "trust_domain": bundle.trust_domain,
        "ca_sha256": bundle.fingerprint,
        "ca_until": bundle.ca.not_valid_after_utc.isoformat(),
        "until": bundle.revoked.valid_until.isoformat(),
        "revocation_list": bundle.revoked.number,
        "revoked": len(bundle.revoked.serials),
        "sequence": bundle.sequence,
        "refresh_hint_s": bundle.refresh_s,
        "evidence_keys": [{"kid": jwk["kid"], "monitor": jwk["iss"]} for jwk in bundle.evidence.jwks()],
    }


def _table(bundle: Bundle) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    revoked = bundle.revoked
    rows = [
        ("trust domain", bundle.trust_domain),
        ("CA, SHA-256", bundle.fingerprint),
        ("good until", f"{revoked.valid_until:%Y-%m-%d %H:%M}Z, then a new one is needed"),
        ("revocations", f"list {revoked.number}, {len(revoked.serials)} revoked"),
        *(("evidence key", f"{jwk['kid']} of {jwk['iss']}") for jwk in bundle.evidence.jwks()),
    ]
    for name, value in rows:
        table.add_row(name, Text(value))
    return table
