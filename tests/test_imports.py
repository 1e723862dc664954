"""The folders are the architecture: imports run downwards only, and never in a circle (docs/architecture.md)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GROUND = {"formats", "bindings", "evidence", "certs"}
MAY_IMPORT = {
    "formats": set(),
    "bindings": {"formats"},
    "certs": {"formats"},
    "evidence": {"formats", "bindings"},
    "engine": {"formats"},
    "addons": GROUND | {"engine"},
    "proxy": GROUND | {"engine", "addons"},
    "verifier": GROUND,
    "cli": GROUND | {"engine", "addons", "proxy", "verifier", "examples"},
    "examples": set(),
}
ROOMS = {
    "orders": {"orders", "config"},
    "outside": {"outside", "config", "webhook_settings"},
    "sidecar": {"sidecar"},
}
"""The rooms of proxy/, and what of proxy/ each may import."""
MODULES = sorted(p.relative_to(ROOT) for folder in MAY_IMPORT for p in (ROOT / folder).rglob("*.py"))


def imported(module: Path) -> set[tuple[str, ...]]:
    """What a module imports of ours, each as path parts under the root; works on syntax, so also inside functions."""
    package = module.parts[:-1]
    found = set()
    for node in ast.walk(ast.parse((ROOT / module).read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            stem = (*base, *(node.module.split(".") if node.module else ()))
            if not node.level:
                if stem[:1] != ("lictor",):
                    continue
                stem = stem[1:]
            found |= {(*stem, alias.name) for alias in node.names}
        elif isinstance(node, ast.Import):
            names = (alias.name.split(".") for alias in node.names)
            found |= {tuple(parts[1:]) for parts in names if parts[0] == "lictor"}
    return found


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_imports_run_downwards(module: Path) -> None:
    folder = module.parts[0]
    for parts in imported(module):
        other = parts[0] if parts else ""
        if other in MAY_IMPORT and other != folder:
            assert other in MAY_IMPORT[folder], f"{module} imports {'.'.join(parts)}"
            if (folder, other) == ("evidence", "bindings"):
                assert parts[1] == "model", f"{module}: of bindings, evidence may import the model only"


def resolve(parts: tuple[str, ...]) -> Path | None:
    for end in (len(parts), len(parts) - 1):
        path = Path(*parts[:end]) if end else Path()
        for candidate in (path.with_suffix(".py") if end else Path("__init__.py"), path / "__init__.py"):
            if (ROOT / candidate).is_file() and candidate in MODULES:
                return candidate
    return None


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_stands_apart(room: str) -> None:
    modules = [m for m in MODULES if m.parts[:2] == ("proxy", room)]
    assert modules
    for module in modules:
        known = {parts[1] for parts in imported(module) if parts[:1] == ("proxy",)}
        assert known <= ROOMS[room], f"{module} imports {sorted(known - ROOMS[room])}"
        if room == "sidecar":
            assert {parts[0] for parts in imported(module)} <= {"proxy", "certs", "formats"}, module


def test_offline_verification_knows_no_service() -> None:
    for module in MODULES:
        if module.parts[0] == "verifier" and module.parts[1] != "service":
            assert ("verifier", "service") not in {parts[:2] for parts in imported(module)}, module


def test_there_is_no_circle() -> None:
    edges = {m: {r for p in imported(m) if (r := resolve(p)) is not None and r != m} for m in MODULES}
    state: dict[Path, bool] = {}

    def visit(module: Path, way: tuple[Path, ...]) -> None:
        if state.get(module):
            return
        assert module not in way, " -> ".join(map(str, (*way[way.index(module) :], module)))
        for other in sorted(edges[module]):
            visit(other, (*way, module))
        state[module] = True

    for module in MODULES:
        visit(module, ())


def test_no_stray_module_in_the_root() -> None:
    assert {p.name for p in ROOT.glob("*.py")} == {"__init__.py", "__main__.py"}
