"""The `lictor` command as a script calls it: in a process of its own, or in this one, which saves half a second."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

from lictor.cli import main

WIDE = {"COLUMNS": "160"}
Done = subprocess.CompletedProcess[str]


def spawned(*args: object, cwd: Path | None = None) -> Done:
    """By `python -m lictor`."""
    command = [sys.executable, "-m", "lictor", *map(str, args)]
    wide = {**os.environ, **WIDE}
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60, check=False, env=wide)


def lictor(*args: object, cwd: Path | None = None) -> Done:
    """The same but for the process. Errors that the command does not foresee are the caller's."""
    words, out, err = ["lictor", *map(str, args)], io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(cwd or Path.cwd()),
        mock.patch.dict(os.environ, WIDE),
        mock.patch.object(sys, "argv", words),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        code = _ended(main)
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


def _ended(run: Callable[[], object]) -> int:
    """The exit code."""
    try:
        run()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    raise AssertionError("the command returned without an exit code")
