"""Criteria and classifiers of third parties: installed distributions offer them by entry points (docs/extending.md).

Only those are loaded that the configuration names. What is loaded runs with all rights of the process that loads it, so
it is told from anything else by a digest of its files.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import Distribution, EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, best_match

from ..formats.canonical import digest
from ..formats.errors import LictorError, UsageError
from .criteria import CRITERIA
from .criterion import Compiled, Criterion, Stateless
from .protocols import PROTOCOLS, Classifier

GROUPS = {"criteria": "lictor.criteria", "classifiers": "lictor.classifiers"}
"""The entry-point group by the key of `[extensions]`."""
_BUILT_IN = {"criteria": frozenset(CRITERIA), "classifiers": frozenset(PROTOCOLS)}
_NEEDS = {"criteria": ("schema", "compile"), "classifiers": ("kinds", "inside", "needs_body", "classify")}


@dataclass(frozen=True, slots=True)
class Extension:
    """What was loaded: `kind` is the key of `[extensions]`, `digest` is over all files of the distribution's code."""

    kind: str
    name: str
    distribution: str
    version: str
    digest: str

    def to_json(self) -> dict[str, str]:
        return asdict(self)


class Checked:
    """A criterion of a third party, behind the JSON Schema that it brings for its criteria."""

    def __init__(self, name: str, criterion: Criterion, schema: Mapping[str, Any]) -> None:
        """Raises UsageError if the schema is none."""
        try:
            Draft202012Validator.check_schema(schema)
        except SchemaError as e:
            raise UsageError(f"the schema of the extension {name} is not a JSON Schema: {e.message}") from None
        self._name, self._criterion, self._validator = name, criterion, Draft202012Validator(schema)

    def compile(self, criteria: Mapping[str, Any]) -> Compiled:
        error = best_match(self._validator.iter_errors(criteria))
        if error is not None:
            raise UsageError(f"{error.json_path}: {error.message}")
        try:
            compiled = self._criterion.compile(criteria)
        except LictorError:
            raise
        except Exception as e:
            raise UsageError(f"the extension {self._name} does not take these criteria: {e}") from e
        if not isinstance(compiled, Stateless) and not callable(getattr(compiled, "begin", None)):
            raise UsageError(f"the extension {self._name} made {type(compiled).__name__}, which cannot judge")
        return compiled


_loaded: dict[tuple[str, str], Extension] = {}


def load_extensions(named: Mapping[str, Sequence[str]]) -> tuple[Extension, ...]:
    """Load what the configuration names, by kind. Raises UsageError for what is not there, not good, or built in."""
    return tuple(_load(kind, name) for kind in GROUPS for name in named.get(kind, ()))


def _load(kind: str, name: str) -> Extension:
    where = f"extensions.{kind}: {name!r}"
    if name in _BUILT_IN[kind]:
        raise UsageError(f"{where} is built in and cannot be replaced: rename the extension")
    point, distribution = _find(kind, name, where)
    extension = Extension(kind, name, distribution.name, distribution.version, _digest(distribution, point))
    if _loaded.setdefault((kind, name), extension) != extension:
        raise UsageError(f"{where} has changed on disk since it was loaded: start again")
    offered = _import(point, where)
    missing = [part for part in _NEEDS[kind] if not hasattr(offered, part)]
    if missing:
        raise UsageError(f"{where} of {distribution.name} has no {' and no '.join(missing)}")
    _REGISTER[kind](name, offered)
    return extension


def _find(kind: str, name: str, where: str) -> tuple[EntryPoint, Distribution]:
    group = GROUPS[kind]
    offered = entry_points(group=group)
    found = [(one, one.dist) for one in offered if one.name == name and one.dist is not None]
    if not found:
        there = ", ".join(sorted({one.name for one in offered})) or "none"
        raise UsageError(f"{where} is not installed: no distribution offers it in the group {group} ({there} there)")
    if len(found) > 1:
        raise UsageError(f"{where} is offered by {' and '.join(sorted(d.name for _, d in found))}: uninstall one")
    return found[0]


def _import(point: EntryPoint, where: str) -> Any:
    try:
        offered = point.load()
        return offered() if inspect.isclass(offered) else offered
    except (Exception, SystemExit) as e:
        raise UsageError(f"{where} cannot be loaded from {point.value}: {type(e).__name__}: {e}") from e


def _digest(distribution: Distribution, point: EntryPoint) -> str:
    """Over the code that the distribution lists, and the module of the entry point, which it may not (editable)."""
    files = {str(file): Path(str(file.locate())) for file in distribution.files or () if "__pycache__" not in str(file)}
    try:
        spec = find_spec(point.module)
    except (ImportError, ValueError):
        spec = None
    if spec is not None and spec.origin is not None:
        files.setdefault(point.module, Path(spec.origin))
    read = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items() if path.is_file()}
    return digest(dict(sorted(read.items())))


def _register_criterion(name: str, offered: Any) -> None:
    CRITERIA[name] = Checked(name, offered, offered.schema)


def _register_classifier(name: str, offered: Classifier) -> None:
    PROTOCOLS[name] = offered


_REGISTER: dict[str, Callable[[str, Any], None]] = {
    "criteria": _register_criterion,
    "classifiers": _register_classifier,
}
