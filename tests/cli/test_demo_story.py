"""One check that fails makes the whole demo fail."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from lictor.cli.demo_story import Story


def test_a_check_holds_when_it_found_what_it_expected() -> None:
    story = Story(Console(quiet=True))
    with story.chapter("One"):
        story.check("count", expected=1, found=1)
        story.check("reason", expected="some reason", found="not_in_allowlist", ok=True)
    assert story.good
    assert [(check["chapter"], check["ok"]) for check in story.to_json()] == [("One", True), ("One", True)]


def test_one_check_that_fails_is_enough() -> None:
    story = Story(Console(quiet=True))
    with story.chapter("One"):
        story.check("count", expected=1, found=0)
        story.check("other", expected=1, found=1)
    assert not story.good


def test_text_from_outside_is_shown_as_it_is() -> None:
    console = Console(record=True, width=120, file=StringIO())
    story = Story(console)
    with story.chapter("[red]One[/]"):
        story.check("[bold]", expected="[/]", found="[/nonsense]", ok=False)
    shown = console.export_text()
    assert "[red]One[/]" in shown
    assert "✗ [bold]: expected [/], found [/nonsense]" in shown
