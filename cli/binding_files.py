"""Bindings that a command names: files, and the *.json of directories."""

from __future__ import annotations

from pathlib import Path

from ..bindings.model import Binding
from ..bindings.registry import read
from ..bindings.schema import load_binding
from ..formats.errors import UsageError


def find_files(paths: tuple[Path, ...]) -> list[Path]:
    """The files named, and the *.json of the directories named. Raises UsageError if there is nothing to look at."""
    files: list[Path] = []
    for path in paths:
        if not path.exists():
            raise UsageError(f"{path} does not exist")
        found = sorted(path.glob("*.json")) if path.is_dir() else [path]
        if not found:
            raise UsageError(f"the directory {path} has no *.json")
        files += found
    return list(dict.fromkeys(files))


def load_unsigned(path: Path) -> tuple[Binding, ...]:
    """The bindings of a file or a directory, signed or not. Raises UsageError, also for one policy_id twice."""
    found: dict[str, tuple[Path, Binding]] = {}
    for file in find_files((path,)):
        binding = load_binding(read(file), str(file))
        other = found.setdefault(binding.policy_id, (file, binding))[0]
        if other is not file:
            raise UsageError(f"{file}: the policy_id {binding.policy_id} is already in {other}")
    return tuple(binding for _, binding in found.values())
