"""`[[webhook]]` of `lictor.toml`: who is told of what happens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..formats.errors import UsageError

KINDS = ("violation", "quarantine", "hold", "revocation")
"""What a webhook may be asked to tell."""


@dataclass(frozen=True, slots=True)
class WebhookSettings:
    """A receiver: its URL, what it calls itself (`aud`), and which kinds of events it is told.

    PEM files: the CAs of its certificate (None: the system's), and our own certificate and key.
    """

    url: str
    audience: str
    ca: Path | None
    cert: Path
    key: Path
    events: frozenset[str]


def webhooks(base: Path, tables: list[dict[str, Any]], own: Path) -> tuple[WebhookSettings, ...]:
    """From a configuration whose form is checked; `own` is the folder of the monitor's files. Raises UsageError."""
    found = []
    for index, table in enumerate(tables):
        files = {name: base / table[name] for name in ("ca", "client_cert", "client_key") if name in table}
        for name, file in files.items():
            if not file.is_file():
                raise UsageError(f"webhook[{index}].{name}: there is no file {file}")
        if ("client_cert" in files) != ("client_key" in files):
            raise UsageError(f"webhook[{index}]: client_cert and client_key go together; one of them is missing")
        cert, key = files.get("client_cert", own / "cert.pem"), files.get("client_key", own / "key.pem")
        events = frozenset(table.get("events", KINDS))
        found.append(WebhookSettings(table["url"], table["audience"], files.get("ca"), cert, key, events))
    if len({(one.url, one.audience) for one in found}) < len(found):
        raise UsageError("two [[webhook]] tables have the same url and audience")
    return tuple(found)
