"""The `lictor` command: one module a command group, loaded when it is called."""

from __future__ import annotations

import importlib
import sys
from typing import NoReturn

import click

from .. import __version__
from ..formats.errors import LictorError, UsageError

EXIT_CODES = (
    "Exit codes: 0 good; 1 the answer is no (a violation, a failed verification); 2 wrong use or wrong configuration; "
    "3 evidence incomplete (prefix only, gap)."
)
COMMANDS = {
    "demo": "the whole story in under a minute, on this machine only",
    "init": "make a working set: configuration, trust domain, first agent, first binding",
    "up": "run the monitor of ./lictor.toml",
    "exec": "run an agent behind the monitor",
    "agent": "identities: add, list, revoke, rotate, quarantine, release, hold, holds, unhold",
    "approve": "decide on actions that are held",
    "delegation": "delegations of a running monitor: list, revoke",
    "monitor": "a monitor's keys, and what it says of itself: show, verify, digest",
    "federation": "trust bundles to exchange with other trust domains: export, show",
    "signer": "an evidence key in a process of its own",
    "binding": "policies: check, sign, verify, explain, learn, replay",
    "tools": "tools of MCP servers: list, approve",
    "log": "the action log: show, tail, verify, export, prove",
    "bet": "Behavioral Evidence Tokens: show, issue, verify",
    "chain": "a delegation chain: show, verify",
    "verifier": "appraise monitors' evidence, ask about agents: add, up, ask, disclose, forgive",
    "witness": "sign the checkpoints of other monitors' logs: key, up",
}


class _Lazy(click.Group):
    """Each command lives in the module of its name (`exec` in `exec_`), as `command`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module = importlib.import_module(f".{name}_" if name == "exec" else f".{name}", __name__)
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]}, epilog=EXIT_CODES)
@click.version_option(__version__, prog_name="lictor")
def cli() -> None:
    """An inline mTLS proxy monitor for AI agents: judges every action before it leaves, records it, signs evidence."""


def main() -> NoReturn:
    """Run the command line; every error that lictor raises on purpose is one line and an exit code."""
    try:
        code = cli.main(prog_name="lictor", standalone_mode=False)
    except UsageError as e:
        click.echo(f"lictor: {e}", err=True)
        code = 2
    except LictorError as e:
        click.echo(f"lictor: {e}", err=True)
        code = 1
    except click.ClickException as e:
        e.show()
        code = 2
    except (click.Abort, KeyboardInterrupt):
        click.echo("lictor: stopped", err=True)
        code = 130
    sys.exit(code if isinstance(code, int) else 0)
