"""`lictor monitor`: the keys of a monitor, and what it says of itself."""

from __future__ import annotations

from pathlib import Path

import click

from ..certs.domain import MONITOR_DAYS, TrustDomain
from ..certs.evidence_keys import evidence_jwk
from . import monitor_describe
from .agent import trust_option
from .output import console, json_option, print_json


@click.group("monitor")
def command() -> None:
    """A monitor's keys: rotate-evidence, retire-evidence, revoke; what it says of itself: show, verify, digest."""


for _said in (monitor_describe.show, monitor_describe.verify, monitor_describe.digest):
    command.add_command(_said)


@command.command("rotate-evidence")
@click.argument("name")
@click.option("--days", type=float, default=MONITOR_DAYS, show_default=True, help="How long the certificate is good.")
@click.option("--no-overlap", is_flag=True, help="Delete the key before at once: it is lost.")
@click.option("--revoke", is_flag=True, help="Delete it at once and revoke its certificate: it is known to others.")
@trust_option
@json_option
def rotate(name: str, days: float, no_overlap: bool, revoke: bool, trust: Path, as_json: bool) -> None:
    """Give the monitor NAME a new evidence key and certificate. A running monitor takes it within a second.

    It signs tokens with the new key from then on, and checkpoints with both until `retire-evidence`. What the key
    before has signed stays valid, unless you revoke it: its certificate is kept, here and in the log.
    """
    overlap = not (no_overlap or revoke)
    files = TrustDomain.open(trust).rotate_evidence(name, days, overlap=overlap, revoke=revoke)
    kid = evidence_jwk(files.evidence_cert.read_bytes())["kid"]
    if as_json:
        print_json({"ok": True, "monitor": str(files.spiffe_id), "kid": kid, "overlap": overlap, "revoked": revoke})
        return
    console.print(f"{files.spiffe_id} signs with {kid}", markup=False)
    if revoke:
        console.print("the key before is revoked; Verifiers refuse what it has signed, and partners with a new bundle")
    if overlap:
        console.print(f"when witnesses and verifiers know it:  lictor monitor retire-evidence {name}", markup=False)


@command.command("retire-evidence")
@click.argument("name")
@trust_option
@json_option
def retire(name: str, trust: Path, as_json: bool) -> None:
    """Delete the evidence key that the monitor NAME had before the last rotation."""
    found = TrustDomain.open(trust).retire_evidence(name)
    if as_json:
        print_json({"ok": True, "retired": found})
    else:
        console.print("the former key is deleted" if found else "there is no former key")


@command.command("revoke")
@click.argument("name")
@trust_option
@json_option
def revoke(name: str, trust: Path, as_json: bool) -> None:
    """Put the certificates of the monitor NAME on the revocation list: other monitors refuse it at its next request.

    Partners do once they have a new trust bundle (`lictor federation export`).
    """
    files = TrustDomain.open(trust).revoke_monitor(name)
    if as_json:
        print_json({"ok": True, "monitor": str(files.spiffe_id)})
    else:
        console.print(f"{files.spiffe_id} is revoked", markup=False)
