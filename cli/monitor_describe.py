"""`lictor monitor digest`, `show` and `verify`: what is installed here, and what monitors say of themselves."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from ..evidence.description import Description, newest_token
from ..evidence.sqlite_store import SqliteReader
from ..formats.errors import UsageError, VerificationError
from ..proxy.config import load
from ..proxy.installed import dependencies, package_digest, package_manifest
from ..verifier.bets import holds_evidence
from ..verifier.describing import Unanswered, ask_monitor, parse, verify_description
from ..verifier.log import verify_log
from .evidence_view import when
from .log_options import find_ledger, ledger_option
from .log_view import plain
from .output import console, json_option, print_json
from .remote import Asking, Auditor, is_url
from .trusted import find_trust, trust_options

_FILE = click.Path(path_type=Path)
NOTHING_KNOWN = 3


@click.command("digest")
@click.option("--manifest", is_flag=True, help="The lines that the package's digest is over, as sha256sum writes them.")
@click.option("-c", "--config", type=_FILE, default=Path("lictor.toml"), show_default=True, help="Configuration.")
@json_option
def digest(manifest: bool, config: Path, as_json: bool) -> None:
    """Print the digests of what is installed here, as a monitor that is started here states them.

    `lictor monitor digest --manifest | sha256sum` is the package's digest again.
    """
    if manifest:
        click.echo(package_manifest(), nl=False)
        return
    found = {"package": package_digest(), "dependencies": dependencies().digest}
    if config.exists():
        settings = load(config)
        found["configuration"] = settings.digest
        found |= {f"extension {one.name}": one.digest for one in settings.extensions}
    if as_json:
        print_json(found)
    else:
        console.print(_table(found.items()))


@click.command("show")
@click.argument("source", metavar="[FILE]", required=False, type=_FILE)
@ledger_option
@json_option
def show(source: Path | None, config: Path, ledger: Path | None, as_json: bool) -> None:
    """Show what the monitor says of itself: the newest in its ledger, or a token in FILE. Nothing is verified."""
    token = _read(source) if source is not None else _newest(find_ledger(config, ledger))
    _print(parse(token)[1], as_json, {})
    if not as_json:
        console.print(Text("Nothing was verified; `lictor monitor verify` does.", "dim"))


@click.command("verify")
@click.argument("source", metavar="FILE|URL")
@click.option("--package-digest", "packages", metavar="HEX", multiple=True, help="It must run one of these.")
@click.option("--configuration-digest", "configurations", metavar="DIGEST", multiple=True, help="Likewise.")
@click.option("--as", "identity", default="default", show_default=True, metavar="NAME", help="Of a URL: who asks.")
@click.option("--cert", type=_FILE, metavar="PEM", help="Of a URL: ask with this certificate instead.")
@click.option("--key", type=_FILE, metavar="PEM", help="The key of --cert.")
@trust_options
@json_option
@click.pass_context
def verify(
    ctx: click.Context,
    source: str,
    packages: tuple[str, ...],
    configurations: tuple[str, ...],
    identity: str,
    cert: Path | None,
    key: Path | None,
    trust: Path | None,
    config: Path,
    bundles: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Verify what a monitor says of itself: in a token, in an evidence file or a ledger, or at its API's URL.

    Exit 0 if it holds, 1 if not or if it is not what was asked for, 3 if it cannot be had, or the log has gaps.
    """
    ca_pem = find_trust(trust, config, bundles).ca_pem
    code = 0
    try:
        if is_url(source):
            found = _asked(source, Asking(trust, config, bundles, Auditor(identity, cert, key, 0)), ca_pem)
        elif holds_evidence(Path(source)):
            found, code = _of_log(Path(source), ca_pem)
        else:
            found = verify_description(_read(Path(source)), ca_pem)
    except Unanswered as e:
        click.echo(f"lictor: {e}", err=True)
        ctx.exit(NOTHING_KNOWN)
    problems = [
        f"the {what} has the digest {has}, expected {' or '.join(wanted)}"
        for what, has, wanted in (
            ("package", found.package, packages),
            ("configuration", found.configuration, configurations),
        )
        if wanted and has not in wanted
    ]
    _print(found, as_json, {"ok": not problems and code == 0, "problems": problems})
    ctx.exit(1 if problems else code)


def _asked(url: str, asking: Asking, ca_pem: bytes) -> Description:
    context, expected = asking.by_tls()
    monitor, token = ask_monitor(url, context, expected.check)
    found = verify_description(token, ca_pem)
    if found.issuer != monitor:
        raise VerificationError(f"{monitor} serves the description of {found.issuer}")
    return found


def _of_log(path: Path, ca_pem: bytes) -> tuple[Description, int]:
    """The newest in a log, and the exit code that verifying the log has. Raises VerificationError."""
    report = verify_log(path, ca_pem)
    if report.exit_code == 1:
        raise VerificationError(f"{path}: {report.problem}")
    if report.described is None:
        raise VerificationError(f"{path}: in what is there of this log the monitor does not describe itself")
    return report.described, report.exit_code


def _read(path: Path) -> str:
    try:
        return path.read_text("ascii").strip()
    except OSError as e:
        raise UsageError(f"{path} cannot be read: {e.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} holds no token") from None


def _newest(ledger: Path) -> str:
    with closing(SqliteReader(ledger)) as reader:
        token = newest_token(reader)
    if token is None:
        raise UsageError(f"the monitor has not described itself in {ledger}: it was run by an older version only")
    return token


def _print(found: Description, as_json: bool, more: dict[str, Any]) -> None:
    if as_json:
        print_json({**more, **{name: value for name, value in asdict(found).items() if name != "token"}})
        return
    for problem in more.get("problems", ()):
        console.print(Text(plain(problem), "red"))
    rows = {
        "monitor": found.issuer,
        "runs": f"lictor {found.version} on {found.python}",
        "package": found.package,
        "dependencies": f"{found.dependencies}, {len(found.distributions)} distributions",
        "configuration": found.configuration,
        "bindings": f"{len(found.bindings)} in force, digest {found.bindings_digest}",
        "extensions": ", ".join(f"{e.get('name')} {e.get('version')}" for e in found.extensions) or "none",
        "durability": found.durability,
        "started": f"{when(found.started)} UTC",
        "described": f"{when(found.iat)} UTC, entry {found.log_size} of its log",
        "digest": found.digest,
    }
    console.print(_table(rows.items()))


def _table(rows: Iterable[tuple[str, str]]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(plain(name), Text(plain(value)))
    return table
