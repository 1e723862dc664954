"""What the demo tells while it runs: chapters, and under each the checks that decide its exit code."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.padding import Padding

from .log_view import plain


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that the demo expected, and what it found."""

    chapter: str
    what: str
    expected: str
    found: str
    ok: bool


@dataclass(slots=True)
class Story:
    """Prints chapters and checks to `console` as they happen and keeps the checks."""

    console: Console
    checks: list[Check] = field(default_factory=list)
    _chapter: str = ""
    _number: int = 0

    @contextmanager
    def chapter(self, title: str, waiting: str = "") -> Iterator[None]:
        """A part of the story; `waiting` says what is going on until it ends."""
        self._number += 1
        self._chapter = title
        start = time.monotonic()
        self.console.print(f"\n[bold]{self._number:2}  {escape(title)}[/]")
        if waiting:
            with self.console.status(f"[dim]{escape(waiting)}[/]"):
                yield
        else:
            yield
        if (taken := time.monotonic() - start) >= 0.1:
            self.console.print(f"    [dim]{taken:.1f} s[/]")

    def tell(self, text: str) -> None:
        """A sentence under the chapter."""
        self.console.print(f"    {escape(plain(text))}")

    def show(self, picture: RenderableType) -> None:
        """A table or a tree under the chapter."""
        self.console.print(Padding(picture, (0, 0, 0, 4)), soft_wrap=False)

    def check(self, what: str, *, expected: Any, found: Any, ok: bool | None = None) -> None:
        """Note whether `found` is what was expected: the same text, unless `ok` says it otherwise."""
        good = str(expected) == str(found) if ok is None else ok
        check = Check(self._chapter, what, plain(expected), plain(found), good)
        self.checks.append(check)
        if good:
            self.console.print(f"    [green]✓[/] {escape(f'{what}: {check.found}')}")
        else:
            self.console.print(f"    [red]{escape(f'✗ {what}: expected {check.expected}, found {check.found}')}[/]")

    @property
    def good(self) -> bool:
        """Did every check hold?"""
        return all(check.ok for check in self.checks)

    def to_json(self) -> list[dict[str, Any]]:
        """The checks, in the order in which they were made."""
        return [asdict(check) for check in self.checks]
