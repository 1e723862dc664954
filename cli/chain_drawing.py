"""A delegation DAG as a drawing: which box stands where, what is written in it, and the arrows between them.

Predecessors stand left of what came after them, in as many columns as the longest way has nodes, and in the middle of
what hangs under them, as in a tree; only the arrows to a second predecessor may cross others. Nothing is verified here.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..verifier.chain import Chain, Node
from .evidence_view import naming, when

BOX_WIDTH, BOX_HEIGHT = 210, 54
COLUMN, ROW = 280, 72
MARGIN = 24
_WORST = ("fail", "partial", "not-run", "pass")


@dataclass(frozen=True, slots=True)
class Box:
    """One node. `result` is the worst of its BETs, "" without any; `lines` are for people; `x` and `y` in pixels."""

    name: str
    title: str
    subtitle: str
    result: str
    lines: tuple[str, ...]
    x: int
    y: int


@dataclass(frozen=True, slots=True)
class Drawing:
    """Boxes with names that are unique in the drawing, and arrows (from, to) by these names."""

    boxes: tuple[Box, ...]
    arrows: tuple[tuple[str, str], ...]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        width = max((box.x for box in self.boxes), default=0) + BOX_WIDTH + MARGIN
        return width, max((box.y for box in self.boxes), default=0) + BOX_HEIGHT + MARGIN


def draw(chain: Chain) -> Drawing:
    """All workflows of a chain, one below the other."""
    names = {id(node): f"n{number}" for number, node in enumerate(chain.nodes.values())}
    title = naming(chain)
    boxes: list[Box] = []
    top = MARGIN
    for nodes in chain.workflows().values():
        depths = _depths(nodes)
        rows = _rows(nodes, depths)
        for node in nodes:
            x, y = MARGIN + depths[id(node)] * COLUMN, top + round(rows[id(node)] * ROW)
            boxes.append(_box(names[id(node)], title(node.agent), node, x, y))
        top = max(box.y for box in boxes) + ROW + ROW // 2
    arrows = [(names[id(parent)], names[id(node)]) for node in chain.nodes.values() for parent in node.parents]
    return Drawing(tuple(boxes), tuple(arrows))


def duration(node: Node) -> float | None:
    """Seconds from the node to the end of the last window about it; None without evidence."""
    ends = [one.end for one in node.bets]
    return max(ends) - node.ect.iat if ends else None


def _depths(nodes: Sequence[Node]) -> dict[int, int]:
    """The length of the longest way to each node; of nodes that are their own ancestors, 0."""
    depths = {id(node): 0 for node in nodes}
    waiting = {id(node): sum(id(parent) in depths for parent in node.parents) for node in nodes}
    ready = deque(node for node in nodes if waiting[id(node)] == 0)
    while ready:
        node = ready.popleft()
        for child in node.children:
            if id(child) not in depths:
                continue
            depths[id(child)] = max(depths[id(child)], depths[id(node)] + 1)
            waiting[id(child)] -= 1
            if waiting[id(child)] == 0:
                ready.append(child)
    return {key: depth if waiting[key] == 0 else 0 for key, depth in depths.items()}


def _rows(nodes: Sequence[Node], depths: Mapping[int, int]) -> dict[int, float]:
    """A row for each node: those that nothing hangs under have one each, the others stand in the middle of theirs."""
    under: defaultdict[int, list[Node]] = defaultdict(list)
    roots = []
    for node in nodes:
        above = _hangs_under(node, depths)
        under[id(above)].append(node) if above is not None else roots.append(node)
    rows: dict[int, float] = {}
    free = 0
    waiting = [(node, False) for node in reversed(roots)]
    while waiting:
        node, placed_below = waiting.pop()
        below = under[id(node)]
        if below and not placed_below:
            waiting.append((node, True))
            waiting += [(child, False) for child in reversed(below)]
        elif below:
            rows[id(node)] = (rows[id(below[0])] + rows[id(below[-1])]) / 2
        else:
            rows[id(node)] = free
            free += 1
    return rows


def _hangs_under(node: Node, depths: Mapping[int, int]) -> Node | None:
    """Of several predecessors the one in the column before, or else the nearest to it."""
    before = [parent for parent in node.parents if depths.get(id(parent), depths[id(node)]) < depths[id(node)]]
    return max(before, key=lambda parent: depths[id(parent)], default=None)


def _box(name: str, title: str, node: Node, x: int, y: int) -> Box:
    results = {one.result for one in node.bets}
    worst = next((result for result in _WORST if result in results), "")
    took = duration(node)
    parts = [worst or "no evidence", f"{len(node.bets)} BETs" if len(node.bets) != 1 else "1 BET"]
    if took is not None:
        parts.append(f"{took:.1f} s")
    return Box(name, title, ", ".join(parts), worst, tuple(_lines(node)), x, y)


def _lines(node: Node) -> list[str]:
    absent = len(node.ect.parents) - len(node.parents)
    lines = [
        f"agent {node.agent}",
        f"node {node.ect.jti} of workflow {node.ect.wid or 'without a name'}",
        f"by {node.ect.issuer}, {when(node.ect.iat)} UTC",
    ]
    if absent:
        lines.append(f"{absent} predecessor{'s' * (absent > 1)} not in the files")
    policies: defaultdict[tuple[str, str], int] = defaultdict(int)
    for one in node.bets:
        policies[one.policy, one.result] += 1
    lines += [f"{result}: {policy} ({count})" for (policy, result), count in policies.items()]
    return lines
