"""Drawings of chains: every node and edge is there, columns follow the order, and hostile names stay text."""

from __future__ import annotations

import html.parser
import json
import os
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from lictor.cli.chain import command
from lictor.cli.chain_drawing import BOX_HEIGHT, BOX_WIDTH, COLUMN, MARGIN, Drawing, draw
from lictor.cli.chain_formats import to_dot, to_mermaid, to_svg
from lictor.cli.chain_page import to_html
from lictor.cli.evidence_view import chain_trees
from lictor.evidence.bet import Bet
from lictor.evidence.ect import Ect
from lictor.verifier.chain import Chain, Node

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "spiffe://x/agent/</script><script>alert(1)</script>\"'`]\\|{}\n\x1b[31m&amp;"


def bet(result: str, end: float = 12.0, policy: str = "urn:p") -> Bet:
    given: dict[str, Any] = dict.fromkeys(Bet.__dataclass_fields__)
    given |= {"result": result, "policy": policy, "start": 10.0, "end": end, "details": (), "ext": {}}
    return Bet(**given)


def chain_of(edges: dict[str, tuple[str, ...]], results: dict[str, tuple[str, ...]] | None = None) -> Chain:
    """Nodes by name with their predecessors, in an order of time."""
    chain = Chain()
    for number, (name, parents) in enumerate(edges.items()):
        ect = Ect("spiffe://x/monitor/m", f"spiffe://x/agent/{name}", (), name, "w", "a", parents, number, 600, {}, "")
        node = Node(ect, bets=[bet(result) for result in (results or {}).get(name, ())])
        chain.nodes["w", name] = node
        for parent in parents:
            node.parents.append(chain.nodes["w", parent])
            chain.nodes["w", parent].children.append(node)
    return chain


DIAMOND = {"a": (), "b": ("a",), "c": ("a",), "d": ("b", "c"), "e": ("d", "a")}


def columns(drawing: Drawing) -> dict[str, int]:
    return {box.title.rpartition("/")[2]: (box.x - MARGIN) // COLUMN for box in drawing.boxes}


def test_a_node_stands_right_of_all_that_it_comes_after() -> None:
    drawing = draw(chain_of(DIAMOND))
    assert columns(drawing) == {"a": 0, "b": 1, "c": 1, "d": 2, "e": 3}
    assert len(drawing.arrows) == sum(map(len, DIAMOND.values()))
    assert len({(box.x, box.y) for box in drawing.boxes}) == len(drawing.boxes)


def test_a_node_stands_in_the_middle_of_what_hangs_under_it() -> None:
    drawing = draw(chain_of({"a": (), "b": (), "b1": ("b",), "a1": ("a",), "a2": ("a",), "a3": ("a",)}))
    rows = {box.title.rpartition("/")[2]: box.y for box in drawing.boxes}
    assert rows["a1"] < rows["a2"] == rows["a"] < rows["a3"] < rows["b"] == rows["b1"]


def test_where_agents_are_of_several_trust_domains_it_is_said_of_which() -> None:
    chain = chain_of({"a": ()})
    assert [box.title for box in draw(chain).boxes] == ["agent/a"]
    other = Node(Ect("spiffe://y/monitor/m", "spiffe://y/agent/a", (), "z", "v", "a", (), 9, 600, {}, ""))
    chain.nodes["v", "z"] = other
    assert [box.title for box in draw(chain).boxes] == ["agent/a of x", "agent/a of y"]
    tree = list(chain_trees(chain))[1]
    assert "agent/a of y" in str(tree.children[0].label)
    assert "by monitor/m of y" in str(tree.children[0].label)


def test_workflows_stand_below_each_other() -> None:
    chain = chain_of({"a": (), "b": ("a",)})
    other = Node(Ect("spiffe://x/monitor/m", "spiffe://x/agent/z", (), "z", "v", "a", (), 9, 600, {}, ""))
    chain.nodes["v", "z"] = other
    places = {(box.x, box.y) for box in draw(chain).boxes}
    assert len(places) == 3


def test_nodes_that_are_their_own_ancestors_are_drawn() -> None:
    chain = chain_of({"a": (), "b": ("a",)})
    first, last = chain.nodes.values()
    first.parents.append(last)
    last.children.append(first)
    assert len(draw(chain).boxes) == 2


@pytest.mark.parametrize(
    ("results", "worst"), [((), ""), (("pass",), "pass"), (("pass", "partial"), "partial"), (("fail", "pass"), "fail")]
)
def test_a_box_has_the_colour_of_the_worst_result(results: tuple[str, ...], worst: str) -> None:
    (box,) = draw(chain_of({"a": ()}, {"a": results})).boxes
    assert box.result == worst
    assert ("12.0 s" in box.subtitle) == bool(results)


def hostile() -> Drawing:
    chain = chain_of({"a": (), "b": ("a",)}, {"b": ("fail",)})
    chain.nodes["w", "evil"] = Node(
        Ect(HOSTILE, HOSTILE, (), HOSTILE, "w", "a", (), 3, 600, {}, ""), bets=[bet("fail", policy=HOSTILE)]
    )
    return draw(chain)


def test_svg() -> None:
    root = ET.fromstring(to_svg(hostile()))
    assert len(root.findall(f"{SVG}g")) == 3
    assert len([path for path in root.findall(f"{SVG}path") if path.get("class") == "arrow"]) == 1
    assert "script" not in {element.tag.removeprefix(SVG) for element in root.iter()}


def test_dot_and_mermaid() -> None:
    dot = to_dot(hostile())
    assert dot.count("->") == 1
    for line in dot.splitlines():
        # Outside of quoted strings nothing of a name is left.
        assert "alert" not in re.sub(r'"(?:[^"\\]|\\.)*"', "", line)
    mermaid = to_mermaid(hostile())
    assert mermaid.count("-->") == 1
    assert "<script>" not in mermaid
    assert all(line.count('"') in (0, 2) for line in mermaid.splitlines())


class Page(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.scripts: list[dict[str, str | None]] = []
        self.elsewhere: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "script":
            self.scripts.append(given)
        self.elsewhere += [str(given[name]) for name in ("src", "href", "onclick", "onload") if name in given]


def test_html_asks_for_nothing_and_runs_only_its_own_script() -> None:
    text = to_html(hostile(), "Chain <1>")
    page = Page()
    page.feed(text)
    assert page.scripts == [{"type": "application/json", "id": "texts"}, {}]
    assert page.elsewhere == []
    assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
    found = re.search(r'id="texts">(.*?)</script>', text)
    assert found is not None
    assert any(HOSTILE in line for lines in json.loads(found[1]).values() for line in lines)


def test_five_hundred_nodes() -> None:
    edges: dict[str, tuple[str, ...]] = {"0": ()}
    for number in range(1, 500):
        edges[str(number)] = (str((number - 1) // 3),)
    drawing = draw(chain_of(edges))
    assert len(drawing.boxes) == 500
    assert len({(box.x, box.y) for box in drawing.boxes}) == 500
    assert len(to_html(drawing, "x")) < 1_000_000


def test_a_browser_goes_to_the_node_that_is_asked_for(tmp_path: Path) -> None:
    """Of many, where few can be seen at a time; from there links lead to those before and after it."""
    if shutil.which("chromium") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("chromium is not installed")
    edges: dict[str, tuple[str, ...]] = {"0": (), **{str(n): (str((n - 1) // 3),) for n in range(1, 500)}}
    drawing, page = draw(chain_of(edges)), tmp_path / "chain.html"
    page.write_text(to_html(drawing, "x"))
    (box,) = [one for one in drawing.boxes if one.title.endswith("/100")]
    quiet = ("--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update")
    program = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", *quiet, f"--user-data-dir={tmp_path}/profile"]
    done = subprocess.run(
        [*program, "--window-size=1400,900", "--dump-dom", f"{page.as_uri()}#{box.name}"],
        capture_output=True,
        text=True,
        timeout=90,
        check=True,
    )
    found = re.search(r'<svg [^>]*viewBox="([^"]*)"', done.stdout)
    assert found is not None
    x, y, width, height = map(float, found[1].split())
    assert x < box.x < x + width - BOX_WIDTH
    assert y < box.y < y + height - BOX_HEIGHT
    assert width < 1400, "and it can be read"
    said = done.stdout.partition('<aside id="said"')[2].partition("</aside>")[0]
    assert re.findall(r'<a href="#(n\d+)">([^<]*)</a>', said) == [
        ("n33", "from agent/33"),
        *((f"n{n}", f"to agent/{n}") for n in (301, 302, 303)),
    ]


@pytest.mark.parametrize("form", ["dot", "mermaid", "svg", "html"])
def test_show_writes_a_drawing(chain_files: Any, tmp_path: Path, form: str) -> None:
    files = [str(path) for path in chain_files.files]
    printed = CliRunner().invoke(command, ["show", *files, "--format", form])
    assert printed.exit_code == 0
    assert "agent/a" in printed.stdout
    out = tmp_path / f"chain.{form}"
    assert CliRunner().invoke(command, ["show", *files, "--format", form, "--out", str(out)]).exit_code == 0
    assert out.read_text() == printed.stdout
