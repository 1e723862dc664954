"""What hostile peers make us say: in a log it stays one line, and does nothing to a terminal."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import lictor
from lictor.formats.plain import plain

HOSTILE = "a\x1b[2J\r\nlictor: all is well\u202e"
SHOWN = r"a\x1b[2J\r\nlictor: all is well\u202e"


def test_what_steers_a_terminal_is_written_out() -> None:
    assert plain(HOSTILE) == SHOWN
    assert plain("déjà vu, 日本") == "déjà vu, 日本"


def test_messages_are_one_line_each() -> None:
    """In a process of its own: the set-up is the whole process's."""
    code = f"""
import logging
from lictor.formats.plain import log_to_stderr
log_to_stderr("x: %(message)s")
log = logging.getLogger("some")
log.error("%s", {HOSTILE!r})
log.info("not said")
try:
    raise ValueError({HOSTILE!r})
except ValueError:
    log.exception("failed")
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    first, second, *traceback = ran.stderr.splitlines()
    assert (first, second) == (f"x: {SHOWN}", "x: failed")
    assert traceback[0] == "Traceback (most recent call last):"
    assert "\x1b" not in ran.stderr
    assert "\u202e" not in ran.stderr


def test_nothing_logs_in_another_way() -> None:
    root = Path(lictor.__file__).parent
    folders = [path for path in root.iterdir() if (path / "__init__.py").exists()]
    found = [
        file.name for folder in folders for file in folder.rglob("*.py") if "basicConfig" in file.read_text("utf-8")
    ]
    assert found == ["plain.py"]
