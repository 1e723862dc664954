"""`lictor bet`: Behavioral Evidence Tokens: a monitor's own, and what a refusal's `Behavioral-Evidence` header has."""

from __future__ import annotations

import os.path
import time
from collections import deque
from collections.abc import Iterable
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.text import Text

from ..certs.evidence_keys import EvidenceKeys
from ..evidence.bet import Bet
from ..evidence.sqlite_store import SqliteReader
from ..formats.errors import FormatError, UsageError, VerificationError
from ..proxy.config import load
from ..proxy.orders.operator import ask
from ..verifier.bets import BetReport, bet_json, find_tokens, holds_evidence, parse_bet, take_keys, verify_bet
from ..verifier.histories import check_histories
from ..verifier.log import verify_log
from ..verifier.report import EXIT_CODES
from .evidence_view import bet_table, bets_table
from .log_options import FILE, find_ledger, ledger_option
from .log_view import log_verdicts, plain, verdict
from .output import console, errors, json_option, print_json
from .trusted import Trusted, find_trust, trust_options

_METAVAR = "TOKEN|HEADER|FILE|-…"
_SOURCES = click.argument("sources", metavar=_METAVAR, nargs=-1, required=True)


class Moment(click.ParamType[float]):
    """Seconds since 1970, or an ISO 8601 time, UTC where it names no zone."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        text = str(value)
        try:
            return float(text)
        except ValueError:
            pass
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            self.fail(f"{text!r} is neither seconds since 1970 nor an ISO 8601 time", param, ctx)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


@click.group()
def command() -> None:
    """Behavioral Evidence Tokens: show, issue, verify."""


@command.command()
@click.argument("sources", metavar=f"[{_METAVAR}]", nargs=-1)
@ledger_option
@click.option("--agent", metavar="NAME|ID", help="Only the BETs about this agent.")
@click.option("--last", type=click.IntRange(min=1), default=50, show_default=True, help="How many of the ledger's.")
@json_option
def show(
    sources: tuple[str, ...], config: Path, ledger: Path | None, agent: str | None, last: int, as_json: bool
) -> None:
    """Show what BETs say; without an argument list those of the monitor's own ledger. Nothing is verified."""
    if not sources:
        _list(_last_bets(find_ledger(config, ledger), agent, last), as_json)
        return
    bets: list[Bet] = [parse_bet(token) for token in _tokens(sources)]
    if as_json:
        print_json([bet_json(one) for one in bets])
        return
    for one in bets:
        console.print(bet_table(one), "")
    console.print(Text("Nothing was verified; `lictor bet verify` does.", "dim"))


def _last_bets(ledger: Path, agent: str | None, last: int) -> list[Bet]:
    with closing(SqliteReader(ledger)) as reader:
        rows = (row for row in reader.bets() if agent is None or row.agent_id.endswith((f"/agent/{agent}", agent)))
        return [parse_bet(row.token) for row in deque(rows, last)]


def _list(bets: list[Bet], as_json: bool) -> None:
    if as_json:
        print_json([bet_json(one) for one in bets])
    else:
        console.print(bets_table(bets) if bets else "there is no BET")


@command.command()
@click.option("--agent", metavar="NAME|ID", required=True, help="An agent's name or SPIFFE ID.")
@click.option("--policy", metavar="URI", help="One policy, instead of each that applies to the agent.")
@click.option("--from", "start", metavar="TIME", type=Moment(), help="Begin of the window; else the first entry.")
@click.option("--to", "end", metavar="TIME", type=Moment(), help="End of the window, not included; else now.")
@click.option("-c", "--config", type=FILE, default=Path("lictor.toml"), show_default=True, help="Configuration.")
@json_option
def issue(agent: str, policy: str | None, start: float | None, end: float | None, config: Path, as_json: bool) -> None:
    """Have the running monitor issue BETs over any window of the past: computed again from its log, and kept there.

    TIME is seconds since 1970 or ISO 8601 (UTC if it names no zone). The tokens are printed, one a line.
    """
    settings = load(config)
    domain = settings.monitor.trust_domain
    agent_id = agent if agent.startswith("spiffe://") else f"spiffe://{domain}/agent/{agent}"
    arguments = {"agent": agent_id, "policy": policy, "from": start, "to": end}
    tokens = ask(settings.ledger.path, "bet", **arguments)
    if as_json:
        print_json([{**bet_json(parse_bet(token)), "token": token} for token in tokens])
        return
    errors.print(bets_table([parse_bet(token) for token in tokens]))
    for token in tokens:
        click.echo(token)


@command.command()
@_SOURCES
@trust_options
@click.option("--keys", metavar="FILE", multiple=True, type=FILE, help="Evidence file, evidence.pem, JWK or JWK set.")
@click.option("--audience", metavar="ID", multiple=True, help="One of these must be in `aud`; none: any will do.")
@click.option("--at", metavar="TIME", type=Moment(), help="Judge by this time, not by now.")
@click.option("--kept", is_flag=True, help="Evidence that was kept: do not judge by the clock at all.")
@json_option
@click.pass_context
def verify(
    ctx: click.Context,
    sources: tuple[str, ...],
    trust: Path | None,
    config: Path,
    bundles: tuple[Path, ...],
    keys: tuple[Path, ...],
    audience: tuple[str, ...],
    at: float | None,
    kept: bool,
    as_json: bool,
) -> None:
    """Verify BETs: signature, key, claims, audience, time; of an evidence file or a ledger all that `log verify` does.

    Keys that the CA vouches for are taken from --keys, from evidence files among the sources, from bundles and from the
    monitors' directories beside the CA. A result of `fail` that was verified is good evidence, so it exits 0. Exit 1 if
    a BET or a file is bad, 3 if a file was cut off (prefix only) or lacks BETs or entries in between (gap). Tokens that
    come with a file of their log are held to it: they rest on the same history, or something is bad.
    """
    if kept and at is not None:
        raise UsageError("--kept and --at exclude each other")
    trusted = find_trust(trust, config, bundles)
    now = None if kept else at if at is not None else time.time()
    with errors.status(Text("verifying")):
        logs = {name: verify_log(Path(name), trusted.ca_pem) for name in _evidence_files(sources)}
        # A file that is not what was signed gives no evidence: its verdict names the first thing that is wrong.
        believed = [source for source in sources if source not in logs or logs[source].verdict != "bad"]
        known = _keys(trusted, [*keys, *(Path(name) for name in believed if name in logs)])
        reports = [verify_bet(token, known, audience=audience or None, now=now) for token in _tokens(believed)]
        held = [report.bet for report in reports if report.bet is not None]
        against = check_histories({name: (Path(name), log) for name, log in logs.items()}, held)
    codes = [0 if report.ok else 1 for report in reports]
    codes += [*(log.exit_code for log in logs.values()), *(EXIT_CODES[found] for found, _ in against)]
    code = 1 if 1 in codes else max(codes, default=0)
    if as_json:
        told = [{"file": name, **log.to_json()} for name, log in logs.items()]
        problems = [{"verdict": found, **asdict(problem)} for found, problem in against]
        bets = [report.to_json() for report in reports]
        print_json({"ok": code == 0, "bets": bets, "logs": told, "problems": problems})
    else:
        _print_reports(reports)
        for line in log_verdicts(logs):
            console.print(line)
        for found, problem in against:
            console.print(verdict(found), Text(plain(problem)))
    ctx.exit(code)


def _tokens(sources: Iterable[str]) -> list[str]:
    try:
        return [token for source in sources for token in find_tokens(source)]
    except FormatError as e:
        raise UsageError(str(e)) from None


def _evidence_files(sources: Iterable[str]) -> list[str]:
    return [source for source in sources if os.path.isfile(source) and holds_evidence(Path(source))]


def _keys(trusted: Trusted, files: Iterable[Path]) -> EvidenceKeys:
    keys = EvidenceKeys(trusted.ca_pem)
    for jwk in trusted.jwks:
        keys.add_jwk(jwk)
    for path in (*trusted.beside, *files):
        try:
            take_keys(keys, path)
        except VerificationError as e:
            raise VerificationError(f"{path}: {e}") from None
    return keys


def _print_reports(reports: Iterable[BetReport]) -> None:
    for report in reports:
        if report.bet is not None:
            console.print(Text.assemble(("good", "bold green"), f"  signed by {report.bet.issuer}"))
            console.print(bet_table(report.bet), "")
        else:
            console.print(Text.assemble(("bad", "bold red"), f"  {plain(report.token[:24])}…: {plain(report.problem)}"))
