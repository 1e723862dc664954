"""The types of compliance criteria. A binding with a type that is not here is refused at load.

The configuration may name more of them (`bindings.extensions`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...formats.errors import UsageError
from ..criterion import Compiled, Criterion
from .allowlist import Allowlist
from .budget import Budget
from .delegation import Delegation
from .denylist import Denylist
from .pattern import Pattern
from .rate import Rate
from .schema import Schema
from .sequence import Sequence
from .time import Time

CRITERIA: dict[str, Criterion] = {
    "allowlist": Allowlist(),
    "budget": Budget(),
    "delegation": Delegation(),
    "denylist": Denylist(),
    "pattern": Pattern(),
    "rate": Rate(),
    "schema": Schema(),
    "sequence": Sequence(),
    "time": Time(),
}


def compile_criteria(criteria: Mapping[str, Any]) -> Compiled:
    """Compile by the member `type`. Raises UsageError for an unknown type, naming the known ones."""
    kind = criteria["type"]
    criterion = CRITERIA.get(kind)
    if criterion is None:
        raise UsageError(f"the criteria type {kind!r} is not known here; known: {', '.join(sorted(CRITERIA))}")
    return criterion.compile(criteria)
