"""The running monitor describes itself: at its start, and whenever what it said is no longer so."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterable
from typing import Any

from .. import __version__
from ..bindings.model import Binding
from ..evidence import description
from ..evidence.ledger import Ledger
from .config import Config
from .evidence_key import EvidenceKey
from .installed import dependencies, package_digest


class SelfDescription:
    """What is measured is measured once: what runs is what was there at the start."""

    def __init__(self, config: Config, key: EvidenceKey) -> None:
        """Raises UsageError if the package cannot be read."""
        needed = dependencies()
        self._config = config
        self._key = key
        self._seq = 0
        self._measured: dict[str, Any] = {
            "swversion": [__version__],
            "started": round(time.time(), 3),
            "python": f"{platform.python_implementation()} {platform.python_version()}",
            "package": package_digest(),
            "dependencies": needed.digest,
            "distributions": needed.versions,
            "configuration": config.digest,
        }

    def enter(self, ledger: Ledger, bindings: Iterable[Binding]) -> None:
        """Describe the monitor as it is now, in its log. Raises LedgerError."""
        digests = (binding.digest for binding in bindings)
        extensions = (extension.to_json() for extension in self._config.extensions)
        claims = description.claims_of(self._config.monitor.spiffe_id, ledger, self._measured, digests, extensions)
        self._seq = description.enter(ledger, self._key, self._key.x5c(), claims).log_size

    def was_erased(self, erased: int) -> bool:
        """Whether the entry is among the first `erased` of the log, so that whoever gets the log cannot read it."""
        return self._seq < erased
