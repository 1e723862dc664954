"""How commands print: text for people, or one JSON document with `--json`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..formats.errors import UsageError

console = Console(highlight=False, soft_wrap=True, emoji=False)
errors = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)


@contextmanager
def progress_bar(title: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Call what it yields with how many `unit` are done, of how many. Only a terminal on standard error shows it."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as bar:
        task = bar.add_task(title, total=None)

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield show


def json_option[F: Callable[..., Any]](command: F) -> F:
    """The `--json` option that everything that prints a result has."""
    return click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")(command)


def print_json(result: Any) -> None:
    """One JSON document on standard output."""
    click.echo(json.dumps(result, indent=2, ensure_ascii=False, default=str))


def print_or_write(text: str, out: Path | None) -> None:
    """To standard output, or into the file `out`. Raises UsageError if that cannot be written."""
    if out is None:
        click.echo(text, nl=False)
        return
    try:
        out.write_text(text, "utf-8")
    except OSError as e:
        raise UsageError(f"{out} cannot be written: {e.strerror}") from None
