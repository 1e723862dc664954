"""`lictor witness`: sign the checkpoints of other monitors' logs, so that none of them can show two histories."""

from __future__ import annotations

import ipaddress
import ssl
import time
from contextlib import closing
from pathlib import Path

import click
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ..evidence.checkpoint import Verifier
from ..evidence.cosignature import Cosigner
from ..evidence.witness import WitnessDesk, WitnessState
from ..formats.errors import FormatError, UsageError
from ..formats.keys import KeySigner, read_private, write_private
from ..formats.plain import log_to_stderr
from ..proxy import loop
from ..proxy.outside.witness_service import WitnessService
from .log_options import FILE
from .output import json_option, print_json

_name = click.option("--name", required=True, metavar="NAME", help="The witness's name, such as witness.example/one.")
_key = click.option("--key", required=True, type=FILE, metavar="FILE", help="Its private key (Ed25519, PEM, 0600).")


@click.group()
def command() -> None:
    """A witness for other monitors' logs (C2SP tlog-witness): key, up."""


@command.command("key")
@_name
@_key
@json_option
def make_key(name: str, key: Path, as_json: bool) -> None:
    """Print the witness's verifier key; its private key is made if FILE is not there.

    A key signs for one witness only: what it signs does not hold its name.
    """
    if not key.exists():
        try:
            write_private(key, Ed25519PrivateKey.generate())
        except OSError as e:
            raise UsageError(f"{key} cannot be written: {e.strerror}") from None
    vkey = str(_cosigner(name, key).witness)
    if as_json:
        print_json({"ok": True, "key": vkey})
    else:
        click.echo(vkey)


@command.command()
@_name
@_key
@click.option("--log", "logs", required=True, multiple=True, type=FILE, metavar="KEYFILE", help="Keys of the logs.")
@click.option("--state", required=True, type=FILE, metavar="FILE", help="Where the last checkpoints are kept (SQLite).")
@click.option("--listen", required=True, metavar="HOST:PORT")
@click.option("--cert", type=FILE, metavar="PEM", help="Serve HTTPS with this certificate.")
@click.option("--cert-key", type=FILE, metavar="PEM", help="The key of --cert.")
def up(
    name: str, key: Path, logs: tuple[Path, ...], state: Path, listen: str, cert: Path | None, cert_key: Path | None
) -> None:
    """Serve as a witness until Ctrl-C or SIGTERM.

    KEYFILE holds verifier keys of logs, one a line, as `lictor log key` prints them. The first checkpoint that is seen
    of a log is believed, every later one must continue the last. Losing the state means losing the memory: do not start
    again with the same key after that.
    """
    log_to_stderr("lictor witness: %(message)s")
    host, port = _address(listen)
    context = _context(host, cert, cert_key)
    cosigner, known = _cosigner(name, key), read_logs(logs)
    with closing(WitnessState(state)) as held:
        desk = WitnessDesk(cosigner, known, held, time.time)

        async def serve() -> None:
            ready = f"lictor: witness {name} listens on {host}:{port} for {len(known)} logs"
            await WitnessService(desk).run(host, port, context, lambda: click.echo(ready))

        loop.run(serve())


def _cosigner(name: str, key: Path) -> Cosigner:
    return Cosigner(name, KeySigner.of(read_private(key)))


def read_logs(paths: tuple[Path, ...]) -> dict[str, tuple[Verifier, ...]]:
    """The keys of logs by origin; a log may have several. Raises UsageError naming the line that is no key."""
    found: dict[str, tuple[Verifier, ...]] = {}
    for path in paths:
        try:
            lines = path.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as e:
            raise UsageError(f"the keys of logs in {path} cannot be read: {e}") from None
        for number, line in enumerate(lines, 1):
            if not line.strip() or line.startswith("#"):
                continue
            try:
                verifier = Verifier.parse(line.strip())
            except FormatError as e:
                raise UsageError(f"{path}, line {number}: {e} (a log's key has the type 01)") from None
            found[verifier.name] = (*found.get(verifier.name, ()), verifier)
    if not found:
        raise UsageError("--log names no key of any log: `lictor log key` prints that of a monitor")
    return found


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UsageError(f"--listen must be HOST:PORT, found {text!r}")
    return host.strip("[]"), int(port)


def _context(host: str, cert: Path | None, cert_key: Path | None) -> ssl.SSLContext | None:
    if (cert is None) != (cert_key is None):
        raise UsageError("--cert and --cert-key go together; one of them is missing")
    if cert is None or cert_key is None:
        if host != "localhost" and not _is_loopback(host):
            raise UsageError(f"without --cert only a loopback address is served, not {host}")
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    read_private(cert_key)
    try:
        context.load_cert_chain(cert, cert_key)
    except OSError as e:
        raise UsageError(f"the certificate {cert} cannot be used with the key {cert_key}: {e.strerror or e}") from None
    return context


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
