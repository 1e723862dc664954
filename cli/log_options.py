"""Options that several commands on the log have: which ledger, and which witnesses must have signed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ..evidence.cosignature import read_witnesses
from ..formats.cosignature import CheckpointPolicy
from ..formats.errors import UsageError
from ..proxy.config import load

FILE = click.Path(path_type=Path)


def ledger_option[F: Callable[..., Any]](command: F) -> F:
    """Which ledger: `--ledger PATH`, or that of the configuration."""
    command = click.option("--ledger", type=FILE, help="The ledger file, instead of the configuration's.")(command)
    default = Path("lictor.toml")
    return click.option("-c", "--config", type=FILE, default=default, show_default=True, help="Configuration.")(command)


def find_ledger(config: Path, ledger: Path | None) -> Path:
    """Raises UsageError if neither names one."""
    return ledger if ledger is not None else load(config).ledger.path


def policy_options[F: Callable[..., Any]](command: F) -> F:
    """`--witness KEYFILE`, any number of times, and `--quorum N`."""
    quorum = "How many of the witnesses must have cosigned; without it, all."
    command = click.option("--quorum", type=click.IntRange(min=1), metavar="N", help=quorum)(command)
    text = "A file of verifier keys of witnesses, one a line; may be given several times."
    return click.option("--witness", "witnesses", type=FILE, multiple=True, metavar="KEYFILE", help=text)(command)


def read_policy(witnesses: tuple[Path, ...], quorum: int | None) -> CheckpointPolicy | None:
    """None if no witness was named. Raises UsageError."""
    if not witnesses:
        if quorum is not None:
            raise UsageError("--quorum needs the witnesses' keys: name them with --witness KEYFILE")
        return None
    known = tuple(witness for path in witnesses for witness in read_witnesses(path))
    return CheckpointPolicy(known, len(known) if quorum is None else quorum)
