"""`verifier.toml`: read, checked against config.schema.json, paths made absolute."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..bindings.subjects import check_subject
from ..certs.callers import Listener
from ..certs.domain import TrustDomain
from ..certs.monitors import MonitorFiles
from ..formats.errors import UsageError
from ..formats.settings import address, read_settings, schema_of, spiffe_id


@dataclass(frozen=True, slots=True)
class ReferenceSettings:
    """Where the reference copies of bindings lie, and which public keys (JWK files) may have signed them."""

    directory: Path
    signers: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class OrderSettings:
    """Where a monitor takes orders, and its SPIFFE ID."""

    monitor: str
    url: str


@dataclass(frozen=True, slots=True)
class VerifierConfig:
    """The whole configuration of a Verifier.

    `monitors` may push evidence, `relying_parties` may ask: SPIFFE IDs or patterns (`/*` at the end). Results rest on
    the windows that ended in the last `period_s` seconds. BETs must be for one of `audience`.
    """

    domain: TrustDomain
    files: MonitorFiles
    listen: tuple[str, int]
    register: Path
    period_s: float
    retention_s: float
    audience: tuple[str, ...]
    monitors: tuple[str, ...]
    relying_parties: tuple[str, ...]
    references: ReferenceSettings | None
    orders: tuple[OrderSettings, ...]

    @property
    def spiffe_id(self) -> str:
        return str(self.files.spiffe_id)

    @property
    def listener(self) -> Listener:
        pem = self.files.cert, self.files.key, self.domain.identity_ca, self.domain.crl
        return Listener("listen", *pem, self.domain.name)


def schema() -> dict[str, Any]:
    """The JSON Schema of `verifier.toml`."""
    return schema_of(__package__, "config.schema.json")


def load(path: Path) -> VerifierConfig:
    """Read and check a configuration. Raises UsageError that names the key and the mend."""
    document = read_settings(path, schema(), "`lictor verifier add NAME` says what to write into one")
    base = path.absolute().parent
    domain = TrustDomain.open((base / document["trust"]).absolute())
    files = domain.verifier(document["name"])
    period, retention = float(document.get("period_s", 3600)), 86400 * float(document.get("retention_days", 30))
    if period > retention:
        raise UsageError(f"{path}: retention_days is shorter than period_s: results rest on all of the period")
    return VerifierConfig(
        domain=domain,
        files=files,
        listen=address(document["listen"], "listen"),
        register=base / document["register"],
        period_s=period,
        retention_s=retention,
        audience=tuple(document.get("audience", [str(files.spiffe_id), f"spiffe://{domain.name}/verifier"])),
        monitors=_patterns(document, "monitors", f"spiffe://{domain.name}/monitor/*"),
        relying_parties=_patterns(document, "relying_parties", f"spiffe://{domain.name}/*"),
        references=_references(base, domain, document.get("references")),
        orders=tuple(
            OrderSettings(spiffe_id(table["monitor"], f"orders[{index}].monitor"), table["url"].rstrip("/"))
            for index, table in enumerate(document.get("orders", []))
        ),
    )


def _patterns(document: dict[str, Any], key: str, default: str) -> tuple[str, ...]:
    try:
        return tuple(check_subject(pattern) for pattern in document.get(key, [default]))
    except UsageError as e:
        raise UsageError(f"{key}: {e}") from None


def _references(base: Path, domain: TrustDomain, table: dict[str, Any] | None) -> ReferenceSettings | None:
    if table is None:
        return None
    signers = tuple(base / path for path in table.get("signers", [str(domain.operator_jwk)]))
    return ReferenceSettings(base / table["directory"], signers)
