"""Which tools of MCP servers were approved, and what the servers list: for the control process to tell workers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..addons.tool_watch import MAX_LISTED
from ..bindings.signing import signature_path, verify
from ..evidence.store import Meta
from ..formats import strict_json
from ..formats.errors import FormatError, UsageError
from ..formats.jws import PublicKey
from ..formats.watched import Watched
from .config import Config
from .policies import read_signers

META = "tools"
"""The name under which the store keeps what was listed last."""
Digests = dict[str, str]


class Tools:
    """`put_meta` keeps a value of the store with what is added to the log next."""

    def __init__(self, config: Config, store: Meta, put_meta: Callable[[str, str], None]) -> None:
        """Raises UsageError or VerificationError if a file of pins is not good."""
        self._files = {target.urn: target.pins for target in config.targets if target.pins is not None}
        self._servers = frozenset(target.urn for target in config.targets if target.protocol == "mcp")
        self._settings = config.bindings
        self._put_meta = put_meta
        self._pins = Watched("the files of approved tools", self._watched_files, self._load)
        self._listed = {urn: tools for urn, tools in listed_in(store).items() if urn in self._servers}

    def for_workers(self) -> dict[str, Any]:
        """What `ToolWatch` is made of."""
        return {"pins": self._pins.current, "listed": self._listed}

    def take(self, urn: str, tools: Mapping[str, str]) -> bool:
        """A worker says what a server has listed. True if that is new."""
        before = self._listed.get(urn, {})
        after = dict(list({**before, **tools}.items())[-MAX_LISTED:])
        if after == before or urn not in self._servers:
            return False
        self._listed[urn] = after
        self._put_meta(META, json.dumps(self._listed, separators=(",", ":")))
        return True

    def poll(self) -> bool:
        """Look at the files again; True if other tools are approved now. A bad change is logged, once."""
        before = self._pins.current
        return self._pins.poll() and self._pins.current != before

    def _load(self) -> dict[str, Digests]:
        if not self._files:
            return {}
        keys = read_signers(self._settings.signers)
        return {urn: read_pins(path, urn, keys, self._settings.allow_unsigned) for urn, path in self._files.items()}

    def _watched_files(self) -> list[Path]:
        return [file for path in self._files.values() for file in (path, signature_path(path))]


def listed_in(store: Meta) -> dict[str, Digests]:
    """What each server listed last, as the store of a monitor keeps it."""
    found = store.meta(META)
    return json.loads(found) if found is not None else {}


def pins_document(urn: str, tools: Mapping[str, str]) -> dict[str, Any]:
    """What is signed: the approved tools of one target, each with its digest (`mcp_answers.tool_digest`)."""
    return {"approved_tools_of": urn, "tools": dict(sorted(tools.items()))}


def read_pins(path: Path, urn: str, keys: Mapping[str, PublicKey], allow_unsigned: bool) -> Digests:
    """The approved tools of a target; none where there is no file yet. Raises UsageError and VerificationError."""
    if not path.exists():
        return {}
    try:
        document = strict_json.loads_object(path.read_bytes())
    except (OSError, FormatError) as e:
        raise UsageError(f"{path} cannot be read as approved tools: {e}") from None
    tools = document.get("tools")
    if not isinstance(tools, dict) or not all(isinstance(digest, str) for digest in tools.values()):
        raise UsageError(f"{path} is not a file of lictor tools approve: it has no tools with digests")
    if document != pins_document(urn, tools):
        raise UsageError(f"{path} approves tools of {document.get('approved_tools_of')!r}, expected {urn}")
    signature = signature_path(path)
    if signature.exists():
        verify(document, signature.read_text("ascii", "replace").strip(), keys)
    elif not allow_unsigned:
        raise UsageError(f"{path} is not signed: approve the tools again with lictor tools approve {urn}")
    return tools
