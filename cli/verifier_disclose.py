"""`lictor verifier disclose`: hand what a monitor's operator has disclosed to the Verifier, which judges it again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.text import Text

from ..formats.errors import FormatError, VerificationError
from ..verifier.service import asking
from .log_check import read_text
from .log_options import FILE
from .log_view import plain
from .output import console, json_option, print_json
from .verifier_call import Call, calling

_EXITS = {"agrees": 0, "misjudged": 1, "refused": 1, "undecided": 3, "unanswered": 3}
_COLOURS = {"agrees": "green", "misjudged": "red", "refused": "red", "undecided": "yellow", "unanswered": "yellow"}


@click.command("disclose")
@click.argument("files", metavar="FILE…", nargs=-1, required=True, type=FILE)
@calling
@json_option
@click.pass_context
def disclose(ctx: click.Context, files: tuple[Path, ...], call: Call, as_json: bool) -> None:
    """Have the Verifier judge disclosed actions again: each FILE is one that `lictor log disclose` wrote.

    It judges by its own copies of the bindings. What an honest monitor would not have recorded (misjudged) it holds
    against the monitor, and every agent that this one spoke of is contraindicated until `lictor verifier forgive`.

    Exit 0 if every action agrees, 1 if one is misjudged or a file proves nothing, 3 if one cannot be told (undecided;
    the answer says why) or the Verifier does not answer.
    """
    found = []
    for path in files:
        said = _handed_in(path, call)
        found.append(said)
        if not as_json:
            _show(said)
        if said["verdict"] == "unanswered":
            break
    code = max((_EXITS[said["verdict"]] for said in found), key=(0, 3, 1).index)
    if as_json:
        print_json({"ok": code == 0, "disclosures": found})
    ctx.exit(code)


def _handed_in(path: Path, call: Call) -> dict[str, Any]:
    """What the Verifier says of a file. Raises UsageError for one that cannot be read."""
    file = {"file": str(path)}
    try:
        text = read_text(path)
        return {**file, **asking.disclose(call.url, *call.by_tls(), text)}
    except asking.Unanswered as e:
        return {**file, "verdict": "unanswered", "problem": str(e)}
    except (FormatError, VerificationError) as e:
        return {**file, "verdict": "refused", "problem": str(e)}


def _show(said: dict[str, Any]) -> None:
    verdict = said["verdict"]
    what = f"entry {said['seq']} of {said['monitor']}, of {said['agent']}" if "seq" in said else said["problem"]
    console.print(Text(verdict, f"bold {_COLOURS[verdict]}"), Text(plain(f" {said['file']}: {what}")))
    for one in said.get("behaviors", ()):
        judged = f"recorded {one['recorded'] or 'nothing'}, by the reference copy {one['reference'] or 'undecided'}"
        why = f" ({one['why']})" if one["why"] else ""
        console.print(Text(plain(f"  {one['policy']} {one['behavior']}: {judged}{why}")))
    if "seq" in said and said["problem"]:
        console.print(Text(plain(f"  {said['problem']}")))
