"""How commands print: text for people, or one JSON document with `--json`."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import click
from rich.console import Console

console = Console(highlight=False, soft_wrap=True)
errors = Console(stderr=True, highlight=False, soft_wrap=True)


def json_option[F: Callable[..., Any]](command: F) -> F:
    """The `--json` option that everything that prints a result has."""
    return click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")(command)


def print_json(result: Any) -> None:
    """One JSON document on standard output."""
    click.echo(json.dumps(result, indent=2, ensure_ascii=False, default=str))
