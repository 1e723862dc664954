"""`lictor chain`: a delegation chain from the evidence files of the monitors that took part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import click
from rich.text import Text

from ..formats.errors import UsageError
from ..verifier.chain import Chain, Problem, read_chain, verify_chain
from ..verifier.histories import check_histories
from ..verifier.log import verify_log
from ..verifier.reconciliation import Edge, edge_json, reconcile
from ..verifier.report import LogReport
from .chain_drawing import Drawing, draw
from .chain_formats import to_dot, to_mermaid, to_svg
from .chain_page import to_html
from .evidence_view import chain_trees
from .log_options import FILE
from .log_view import log_verdicts, plain, verdict
from .output import console, errors, json_option, print_json, print_or_write
from .remote import UNREACHABLE, Auditor, auditor_options, named_in, sources
from .trusted import find_trust, trust_options

_LOGS = click.argument("logs", metavar="FILE|LEDGER|URL…", nargs=-1, required=True)

_STATES = {
    "agreed": "of which both monitors recorded the same",
    "broken_off": "that broke off, so that what the monitors recorded of it could not be compared",
    "refused": "not taken by the callee",
    "open": "without an outcome yet",
    "one_sided": "of which one monitor's record is not there",
    "contradicted": "of which the monitors recorded different things",
}


_FORMATS: dict[str, Callable[[Drawing], str]] = {
    "dot": to_dot,
    "mermaid": to_mermaid,
    "svg": to_svg,
    "html": lambda drawing: to_html(drawing, "Delegation chain"),
}


@click.group()
def command() -> None:
    """A delegation chain: show, verify."""


@command.command()
@_LOGS
@click.option(
    "--format",
    "form",
    type=click.Choice(["tree", *_FORMATS]),
    default="tree",
    show_default=True,
    help="A tree in the terminal; or a drawing for Graphviz, for Mermaid, as SVG, or as one HTML file.",
)
@click.option("--out", type=FILE, help="Write the drawing here, not to standard output.")
@trust_options
@auditor_options
@json_option
@click.pass_context
def show(
    ctx: click.Context,
    logs: tuple[str, ...],
    form: str,
    out: Path | None,
    trust: Path | None,
    config: Path,
    bundles: tuple[Path, ...],
    auditor: Auditor,
    as_json: bool,
) -> None:
    """Show who worked for whom, with the evidence of each node. No signature is verified.

    URL is the API of a running monitor (https://HOST:PORT), which must let you have its log (api.auditors).
    """
    if form == "tree" and out is not None:
        raise UsageError("--out goes with --format dot, mermaid, svg or html")
    with sources(logs, trust, config, bundles, auditor) as found:
        chain = read_chain(source.path for source in found if source.path is not None)
    chain.problems = [replace(one, what=named_in(one.what, found)) for one in chain.problems]
    chain.problems += [Problem("missing", f"log {source.name}: {source.problem}") for source in found if source.problem]
    _show(chain, form, out, as_json)
    ctx.exit(UNREACHABLE if any(source.problem for source in found) else 0)


def _show(chain: Chain, form: str, out: Path | None, as_json: bool) -> None:
    if as_json:
        print_json(chain.to_json())
        return
    if form != "tree":
        print_or_write(_FORMATS[form](draw(chain)), out)
        return
    for tree in chain_trees(chain):
        console.print(tree, soft_wrap=False)
    _print_problems(chain)
    console.print(Text("No signature was verified; `lictor chain verify` does.", "dim"))


@command.command()
@_LOGS
@trust_options
@auditor_options
@json_option
@click.pass_context
def verify(
    ctx: click.Context,
    logs: tuple[str, ...],
    trust: Path | None,
    config: Path,
    bundles: tuple[Path, ...],
    auditor: Auditor,
    as_json: bool,
) -> None:
    """Verify the logs and the chain that they tell of. Exit 0 intact, 1 bad, 3 something is not there.

    What the monitors at both ends of a delegation recorded of it is compared: ids, digests, status, times. URL is the
    API of a running monitor (https://HOST:PORT), which must let you have its log (api.auditors).
    """
    trusted = find_trust(trust, config, bundles)
    with sources(logs, trust, config, bundles, auditor) as found, errors.status(Text("verifying")):
        paths = [source.path for source in found if source.path is not None]
        files = {s.name: (s.path, verify_log(s.path, trusted.ca_pem)) for s in found if s.path is not None}
        reports = {name: report for name, (_, report) in files.items()}
        chain = verify_chain(paths, trusted.ca_pem, trusted.jwks)
        edges, differences = reconcile(paths, chain)
        chain.problems += differences
        chain.problems += [Problem("bad", str(problem)) for _, problem in check_histories(files)]
    chain.problems = [replace(one, what=named_in(one.what, found)) for one in chain.problems]
    missing = {source.name: source.problem for source in found if source.path is None}
    codes = {"intact": 0, "bad": 1, "gap": 3, "prefix_only": 3}
    verdicts = [chain.verdict, *(report.verdict for report in reports.values())]
    worst = max((codes[verdict] for verdict in verdicts), default=0)
    code = 1 if "bad" in verdicts else UNREACHABLE if missing else worst
    if as_json:
        shown = {**chain.to_json(), "edges": [edge_json(edge) for edge in edges]}
        told = [{"file": name, **report.to_json()} for name, report in reports.items()]
        told += [{"file": name, "verdict": "missing", "problem": {"what": why}} for name, why in missing.items()]
        print_json({"ok": code == 0, "chain": shown, "logs": told})
    else:
        for name, why in missing.items():
            console.print(verdict("missing"), Text(plain(f"log {name}: {why}")))
        _print(chain, reports, edges)
    ctx.exit(code)


def _print(chain: Chain, logs: dict[str, LogReport], edges: list[Edge]) -> None:
    for line in log_verdicts(logs):
        console.print(line)
    _print_problems(chain)
    for state, count in Counter(edge.state for edge in edges).items():
        console.print(Text(f"{count} delegation{'s' if count > 1 else ''} {_STATES[state]}"))
    counted = f"chain of {len(chain.nodes)} nodes and {len(chain.bets)} BETs in {len(chain.workflows())} workflows"
    console.print(verdict(chain.verdict), Text(counted))


def _print_problems(chain: Chain) -> None:
    for problem in chain.problems:
        console.print(verdict(problem.kind), Text(plain(problem.what)))
