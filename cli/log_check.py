"""Checking a small file that somebody was handed, a proof or a disclosure: read bounded, answered good or bad."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import click
from rich.table import Table
from rich.text import Text

from ..evidence.proof_files import MAX_PROOF_FILE
from ..formats.errors import FormatError, UsageError, VerificationError
from .log_view import plain
from .output import console, print_json


class Report(Protocol):
    """What a check found."""

    def to_json(self) -> dict[str, Any]:
        """As the command prints it with `--json`."""


def check_file[R: Report](
    ctx: click.Context, path: Path, as_json: bool, check: Callable[[str], R], table: Callable[[R], Table]
) -> None:
    """Print what `check` finds in the file's text; exit with 1 if it raises FormatError or VerificationError."""
    try:
        report = check(read_text(path))
    except (FormatError, VerificationError) as e:
        if as_json:
            print_json({"ok": False, "file": str(path), "problem": str(e)})
        else:
            console.print(Text.assemble(("bad", "bold red"), f"  {path}: {plain(e)}"))
        ctx.exit(1)
    if as_json:
        print_json({"ok": True, "file": str(path), **report.to_json()})
    else:
        console.print(Text.assemble(("good", "bold green"), f"  {path}"))
        console.print(table(report))


def read_text(path: Path) -> str:
    """What is in such a file. Raises UsageError if it cannot be read, FormatError if it is none."""
    try:
        with path.open("rb") as f:
            data = f.read(MAX_PROOF_FILE + 1)
    except OSError as e:
        raise UsageError(f"{path} cannot be read: {e.strerror}") from None
    if len(data) > MAX_PROOF_FILE:
        raise FormatError(f"the file has more than {MAX_PROOF_FILE} octets, more than such a file needs")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise FormatError("the file is not UTF-8") from None
