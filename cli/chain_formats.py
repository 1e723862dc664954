"""Drawings of a delegation DAG for other programs: Graphviz, Mermaid, SVG. Names in tokens are hostile input."""

from __future__ import annotations

from xml.sax.saxutils import escape, quoteattr

from .chain_drawing import BOX_HEIGHT, BOX_WIDTH, Box, Drawing

FILLS = {"pass": "#dff2df", "partial": "#fdf3d0", "fail": "#fbdcdc", "not-run": "#eeeeee", "": "#ffffff"}
STROKES = {"pass": "#2e7d32", "partial": "#b28704", "fail": "#c62828", "not-run": "#757575", "": "#9e9e9e"}
MAX_TITLE = 28


def to_dot(drawing: Drawing) -> str:
    """For Graphviz: `dot -Tpdf`."""
    lines = ["digraph chain {", "  rankdir=LR;", "  node [shape=box, style=filled, fontname=sans];"]
    for box in drawing.boxes:
        label = _dot_text(f"{box.title}\n{box.subtitle}")
        tip = _dot_text("\n".join(box.lines))
        colours = f'fillcolor="{FILLS[box.result]}", color="{STROKES[box.result]}"'
        lines.append(f"  {box.name} [label={label}, tooltip={tip}, {colours}];")
    lines += [f"  {one} -> {other};" for one, other in drawing.arrows]
    return "\n".join([*lines, "}"]) + "\n"


def to_mermaid(drawing: Drawing) -> str:
    """For Mermaid, as Markdown pages show it."""
    lines = ["flowchart LR"]
    lines += [f'  {box.name}["{_mermaid_text(box.title)}<br/>{_mermaid_text(box.subtitle)}"]' for box in drawing.boxes]
    lines += [f"  {one} --> {other}" for one, other in drawing.arrows]
    for result, fill in FILLS.items():
        names = [box.name for box in drawing.boxes if box.result == result]
        if names:
            kind = f"result_{result.replace('-', '_') or 'none'}"
            lines.append(f"  classDef {kind} fill:{fill},stroke:{STROKES[result]},color:#111111")
            lines.append(f"  class {','.join(names)} {kind}")
    return "\n".join(lines) + "\n"


def to_svg(drawing: Drawing) -> str:
    """A picture that stands by itself."""
    width, height = drawing.size
    places = {box.name: box for box in drawing.boxes}
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="system-ui, sans-serif" font-size="13">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path d="M0 0 8 4 0 8z" fill="#607d8b"/></marker></defs>',
    ]
    parts += [_arrow(places[one], places[other]) for one, other in drawing.arrows]
    parts += [_box(box) for box in drawing.boxes]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _arrow(start: Box, end: Box) -> str:
    x, y = start.x + BOX_WIDTH, start.y + BOX_HEIGHT // 2
    to_x, to_y = end.x, end.y + BOX_HEIGHT // 2
    bend = max(30, (to_x - x) // 2)
    path = f"M{x} {y}C{x + bend} {y} {to_x - bend} {to_y} {to_x} {to_y}"
    names = f'data-from="{start.name}" data-to="{end.name}"'
    return f'<path class="arrow" {names} d="{path}" fill="none" stroke="#607d8b" marker-end="url(#tip)"/>'


def _box(box: Box) -> str:
    title = box.title if len(box.title) <= MAX_TITLE else box.title[: MAX_TITLE - 1] + "…"
    return (
        f'<g class="box" id="{box.name}" data-result={quoteattr(box.result)} transform="translate({box.x} {box.y})">'
        f"<title>{escape(_plain(chr(10).join(box.lines)))}</title>"
        f'<rect width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="6" fill="{FILLS[box.result]}" '
        f'stroke="{STROKES[box.result]}"/>'
        f'<text x="12" y="22" font-weight="600" fill="#111">{escape(_plain(title))}</text>'
        f'<text x="12" y="41" fill="#444">{escape(_plain(box.subtitle))}</text></g>'
    )


def _plain(text: str) -> str:
    """Without what XML cannot hold or a terminal obeys."""
    return "".join(c if c == "\n" or c.isprintable() else "\ufffd" for c in text)


def _dot_text(text: str) -> str:
    escaped = _plain(text).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _mermaid_text(text: str) -> str:
    """Everything but letters, digits and a few harmless signs as Mermaid's entity codes."""
    return "".join(c if c.isalnum() or c in " /._-," else f"#{ord(c)};" for c in _plain(text))
