"""The progress bar: on a terminal only."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from lictor.cli import output


@pytest.mark.parametrize("terminal", [True, False])
def test_only_a_terminal_shows_the_progress(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    console = Console(file=written, force_terminal=terminal, width=120)
    monkeypatch.setattr(output, "errors", console)
    with output.progress_bar("verifying [x]", "entries") as progress:
        progress(25, 100)
    assert ("verifying [x]" in written.getvalue(), "25/100" in written.getvalue()) == (terminal, terminal)
    assert terminal or not written.getvalue()
