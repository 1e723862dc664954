"""`verifier.toml`: read, checked against config.schema.json, paths made absolute."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...bindings.subjects import check_subject
from ...certs.domain import TrustDomain
from ...certs.listener import Listener
from ...certs.monitors import MonitorFiles
from ...certs.partners import Federated, check_known, federated
from ...evidence.cosignature import read_witnesses
from ...formats.cosignature import CheckpointPolicy
from ...formats.errors import UsageError
from ...formats.settings import address, read_settings, schema_of, spiffe_id
from ..urls import https_address
from .corrective import CorrectiveRule, rules
from .cross_check import Watched
from .descriptions import ReferenceValues


@dataclass(frozen=True, slots=True)
class ReferenceSettings:
    """Where the reference copies of bindings lie, and which public keys (JWK files) may have signed them."""

    directory: Path
    signers: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class MonitorSettings:
    """The SPIFFE ID of a monitor, the URLs where it takes orders and where it serves its log.

    `configurations`: digests of those that it may run with; empty, any will do.
    """

    name: str
    orders: str | None
    log: str | None
    configurations: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LogSettings:
    """What is wanted of monitors' logs within `within_s` seconds after evidence has come.

    `demanded`: that the log was looked at; `policy`: which witnesses must have signed it.
    """

    demanded: bool
    within_s: float
    policy: CheckpointPolicy | None


@dataclass(frozen=True, slots=True)
class VerifierConfig:
    """The whole configuration of a Verifier.

    `monitors` may push evidence, `relying_parties` may ask: SPIFFE IDs or patterns (`/*` at the end), also of the
    trust domains in `federation`. Results rest on the windows that ended in the last `period_s` seconds. BETs must be
    for one of `audience`.
    """

    domain: TrustDomain
    federation: tuple[Federated, ...]
    files: MonitorFiles
    listen: tuple[str, int]
    register: Path
    period_s: float
    retention_s: float
    audience: tuple[str, ...]
    monitors: tuple[str, ...]
    relying_parties: tuple[str, ...]
    references: ReferenceSettings | None
    known_monitors: tuple[MonitorSettings, ...]
    logs: LogSettings
    software: ReferenceValues
    watched: tuple[Watched, ...]
    corrective: tuple[CorrectiveRule, ...]

    @property
    def spiffe_id(self) -> str:
        return str(self.files.spiffe_id)

    @property
    def listener(self) -> Listener:
        pem = self.files.cert, self.files.key, self.domain.identity_ca, self.domain.crl
        named = (*self.monitors, *self.relying_parties)
        return Listener("listen", *pem, self.domain.name, self.federation, named)


def schema() -> dict[str, Any]:
    """The JSON Schema of `verifier.toml`."""
    return schema_of(__package__, "config.schema.json")


def load(path: Path) -> VerifierConfig:
    """Read and check a configuration. Raises UsageError that names the key and the mend."""
    document = read_settings(path, schema(), "`lictor verifier add NAME` says what to write into one")
    base = path.absolute().parent
    domain = TrustDomain.open((base / document["trust"]).absolute())
    files = domain.verifier(document["name"])
    federation = federated(base, document.get("federation", []), domain.name)
    known = {domain.name, *(one.trust_domain for one in federation)}
    period, retention = float(document.get("period_s", 3600)), 86400 * float(document.get("retention_days", 30))
    if period > retention:
        raise UsageError(f"{path}: retention_days is shorter than period_s: results rest on all of the period")
    monitors = _known_monitors(document.get("monitor", []), known)
    return VerifierConfig(
        domain=domain,
        federation=federation,
        files=files,
        listen=address(document["listen"], "listen"),
        register=base / document["register"],
        period_s=period,
        retention_s=retention,
        audience=tuple(document.get("audience", [str(files.spiffe_id), f"spiffe://{domain.name}/verifier"])),
        monitors=_patterns(document, "monitors", f"spiffe://{domain.name}/monitor/*", known),
        relying_parties=_patterns(document, "relying_parties", f"spiffe://{domain.name}/*", known),
        references=_references(base, domain, document.get("references")),
        known_monitors=monitors,
        logs=_logs(base, document.get("logs", {}), monitors),
        watched=_watched(document.get("watched", [])),
        software=ReferenceValues.of(document.get("software", {}), {one.name: one.configurations for one in monitors}),
        corrective=rules(document.get("corrective", []), {one.name: one.orders for one in monitors}),
    )


def _patterns(document: dict[str, Any], key: str, default: str, known: set[str]) -> tuple[str, ...]:
    try:
        found = tuple(check_subject(pattern) for pattern in document.get(key, [default]))
    except UsageError as e:
        raise UsageError(f"{key}: {e}") from None
    for pattern in found:
        check_known(pattern, key, known)
    return found


def _known_monitors(tables: list[dict[str, Any]], known: set[str]) -> tuple[MonitorSettings, ...]:
    found: dict[str, MonitorSettings] = {}
    for index, table in enumerate(tables):
        name = spiffe_id(table["name"], f"monitor[{index}].name")
        if name in found:
            raise UsageError(f"monitor[{index}].name: {name} has a table already")
        check_known(name, f"monitor[{index}].name", known)
        for key in table.keys() & {"orders", "log"}:
            https_address(table[key], f"monitor[{index}].{key} must be")
        orders, log = (table[key].rstrip("/") if key in table else None for key in ("orders", "log"))
        found[name] = MonitorSettings(name, orders, log, tuple(table.get("configurations", ())))
    return tuple(found.values())


def _watched(tables: list[dict[str, Any]]) -> tuple[Watched, ...]:
    found = []
    for index, table in enumerate(tables):
        try:
            agent = check_subject(table["agent"])
        except UsageError as e:
            raise UsageError(f"watched[{index}].agent: {e}") from None
        found.append(Watched(agent, tuple(spiffe_id(one, f"watched[{index}].monitors") for one in table["monitors"])))
    return tuple(found)


def _logs(base: Path, table: dict[str, Any], monitors: tuple[MonitorSettings, ...]) -> LogSettings:
    policy = None
    if "witnesses" in table:
        known = tuple(witness for path in table["witnesses"] for witness in read_witnesses(base / path))
        policy = CheckpointPolicy(known, table.get("quorum", len(known)))
    elif "quorum" in table:
        raise UsageError("logs.quorum needs the witnesses' keys: name their files in logs.witnesses")
    if policy is not None and not any(monitor.log for monitor in monitors):
        raise UsageError("logs.witnesses: no log is looked at: say in monitor.log where monitors serve theirs")
    return LogSettings(table.get("demanded", False), float(table.get("within_s", 300)), policy)


def _references(base: Path, domain: TrustDomain, table: dict[str, Any] | None) -> ReferenceSettings | None:
    if table is None:
        return None
    signers = tuple(base / path for path in table.get("signers", [str(domain.operator_jwk)]))
    return ReferenceSettings(base / table["directory"], signers)
