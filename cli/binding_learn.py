"""`lictor binding learn`: a binding drafted from what an agent did."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from rich.text import Text

from ..bindings.learning import Learner
from ..bindings.schema import load_binding
from ..certs.files import write_atomically
from ..formats.errors import UsageError
from .binding_log import open_log
from .output import errors, json_option, print_json

_FILE = click.Path(path_type=Path)


@click.command()
@click.argument("file", metavar="[EVIDENCE.JSONL]", required=False, type=_FILE)
@click.option("-c", "--config", type=_FILE, default=Path("lictor.toml"), show_default=True, help="Configuration.")
@click.option("--agent", metavar="NAME|ID", required=True, help="An agent's name or SPIFFE ID.")
@click.option("--include-denied", is_flag=True, help="Learn what bindings denied too.")
@click.option(
    "--generalise",
    type=click.IntRange(min=0),
    default=5,
    show_default=True,
    metavar="N",
    help="How many different ids in one place of a URL's path make it a *; 0 for never.",
)
@click.option("-o", "--out", type=_FILE, help="Write the draft to this file, which must not exist.")
@json_option
def learn(
    file: Path | None,
    config: Path,
    agent: str,
    include_denied: bool,
    generalise: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Draft a binding that allows what an agent did according to a log, for you to review and sign.

    Reads an evidence file, or without one the ledger of the configuration. Hosts are never generalised.
    """
    learner = Learner(agent, include_denied)
    with open_log(file, config, "learning") as log:
        for seq, entry in log.entries:
            learner.take(entry, seq)
    draft = learner.binding(log.origin, generalise)
    text = json.dumps(draft, indent=2, ensure_ascii=False) + "\n"
    load_binding(text.encode(), "the draft")
    if out is not None:
        _write(out, text)
    if as_json:
        learned = {"actions": learner.actions, "left_out": dict(learner.left_out)}
        print_json({"ok": True, "log": log.origin, **learned, "binding": draft})
    elif out is None:
        click.echo(text, nl=False)
    if not as_json and (out is not None or learner.left_out):
        errors.print(_summary(draft, out))


def _write(out: Path, text: str) -> None:
    if out.exists():
        raise UsageError(f"{out} exists already: name another file, or remove it first")
    try:
        write_atomically(out, text.encode())
    except OSError as e:
        raise UsageError(f"{out} cannot be written: {e.strerror}") from None


def _summary(draft: dict[str, Any], out: Path | None) -> Text:
    then = f" Then: lictor binding check {out} --strict" if out is not None else ""
    return Text(f"{draft['description']}{then}")
