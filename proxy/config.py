"""`lictor.toml`: read, checked against config.schema.json, paths made absolute. Secrets are files, never values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..bindings.catalog import Catalog
from ..bindings.extensions import Extension, load_extensions
from ..bindings.subjects import check_subject
from ..bindings.target import Target
from ..certs.domain import TrustDomain
from ..certs.listener import Listener
from ..certs.partners import Federated, check_known, federated, partners_among
from ..evidence.store import Durability
from ..formats.canonical import digest
from ..formats.cosignature import CheckpointPolicy, Witness
from ..formats.errors import FormatError, UsageError
from ..formats.names import host_text, parse_url
from ..formats.settings import read_settings, schema_of, spiffe_id
from .listening import Listen, listening
from .webhook_settings import WebhookSettings, webhooks

FOR_PARTNERS = ("evidence",)
"""Listeners, besides that for ingress, where the monitors of partners call."""


@dataclass(frozen=True, slots=True)
class Monitor:
    """`name` is the monitor's name in its trust domain; `spiffe_id` follows from both."""

    name: str
    trust_domain: str
    workers: int

    @property
    def spiffe_id(self) -> str:
        return f"spiffe://{self.trust_domain}/monitor/{self.name}"


@dataclass(frozen=True, slots=True)
class Ingress:
    """The local agent behind the ingress listener: its SPIFFE ID, its URN as a target, and where it listens."""

    agent: str
    urn: str
    upstream: str


@dataclass(frozen=True, slots=True)
class Identity:
    """`trust` is the trust-domain directory."""

    trust: Path


@dataclass(frozen=True, slots=True)
class Interception:
    """`upstream_ca`: PEM file that replaces the system's roots for upstream TLS; None keeps the system's roots."""

    upstream_ca: Path | None


@dataclass(frozen=True, slots=True)
class BindingSettings:
    """Where bindings lie and which public keys (JWK files) may have signed them.

    Without subjects they are for the agents of `trust_domain`.
    """

    directory: Path
    signers: tuple[Path, ...]
    allow_unsigned: bool
    trust_domain: str


@dataclass(frozen=True, slots=True)
class LedgerSettings:
    """`path` of the SQLite file, and what a receipt waits for: the disk, or the operating system."""

    path: Path
    durability: Durability


@dataclass(frozen=True, slots=True)
class EvidenceSettings:
    """BETs every `interval_s` seconds, give or take the fraction `jitter`, for these Verifiers.

    Entries older than `retention_days` are erased; None keeps them. `signer` is the socket of the process that holds
    the evidence key; None: it is the file in the monitor's folder.
    """

    interval_s: float
    jitter: float
    audience: tuple[str, ...]
    retention_days: float | None
    signer: Path | None


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """Whether the API serves the `entries` and not only their hashes; who (patterns) may have the whole log."""

    entries: bool
    auditors: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WitnessSettings:
    """A witness: its submission prefix, its key, and the CAs (PEM file) that its server is verified with."""

    url: str
    witness: Witness
    ca: Path | None


@dataclass(frozen=True, slots=True)
class Witnessing:
    """New checkpoints go to the witnesses every `interval_s` seconds; one with `quorum` cosignatures is served."""

    witnesses: tuple[WitnessSettings, ...]
    interval_s: float
    quorum: int


@dataclass(frozen=True, slots=True)
class VerifierSettings:
    """Where BETs are pushed, and the SPIFFE ID that the server there must have."""

    url: str
    name: str


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds: bytes of a body that must be understood, seconds to wait for a receipt, actions waiting at once.

    `hold_s` is how long a held action waits for a decision, `held_actions` (of one agent: `…_per_agent`) how many may.
    """

    judged_body_bytes: int
    websocket_message_bytes: int
    receipt_timeout_s: float
    waiting_actions: int
    shutdown_s: float
    dns_timeout_s: float
    head_timeout_s: float
    body_timeout_s: float
    idle_timeout_s: float
    stream_idle_timeout_s: float
    upstream_timeout_s: float
    connections: int
    connections_per_agent: int
    hold_s: float
    held_actions: int
    held_actions_per_agent: int


@dataclass(frozen=True, slots=True)
class Config:
    """The whole configuration of one monitor. `digest` is over the canonical JSON of what the file says."""

    path: Path
    digest: str
    monitor: Monitor
    listen: Listen
    ingress: Ingress | None
    identity: Identity
    federation: tuple[Federated, ...]
    interception: Interception
    targets: tuple[Target, ...]
    bindings: BindingSettings
    ledger: LedgerSettings
    evidence: EvidenceSettings
    api: ApiSettings
    witnessing: Witnessing
    verifier: VerifierSettings | None
    webhooks: tuple[WebhookSettings, ...]
    limits: Limits
    extensions: tuple[Extension, ...]

    @property
    def monitor_dir(self) -> Path:
        """Certificates and keys of this monitor."""
        return self.identity.trust / "monitors" / self.monitor.name

    def listener(self, name: str) -> Listener:
        """What the listener on `listen.<name>` shows and whom it lets in; of partners our Verifier, and auditors."""
        files, trust = self.monitor_dir, self.identity.trust
        pem = files / "cert.pem", files / "key.pem", trust / "identity-ca.pem", trust / "crl.pem"
        partners, named = self.federation, None
        if name not in FOR_PARTNERS:
            verifier = (self.verifier.name,) if self.verifier is not None else ()
            named = (*verifier, *(self.api.auditors if name == "api" else ()))
            partners = partners_among(self.federation, named)
        return Listener(f"listen.{name}", *pem, self.monitor.trust_domain, partners, named)

    def catalog(self) -> Catalog:
        """Raises UsageError for a pattern that is not one."""
        return Catalog(self.targets)


def schema() -> dict[str, Any]:
    """The JSON Schema of `lictor.toml`."""
    return schema_of(__package__, "config.schema.json")


def load(path: Path) -> Config:
    """Read and check a configuration. Raises UsageError that names the key and the mend."""
    document = read_settings(path, schema(), "run `lictor init DIR` to make one, or name it with -c FILE")
    return _build(path.absolute(), document)


def _build(path: Path, document: dict[str, Any]) -> Config:
    base = path.parent
    trust = (base / document["identity"]["trust"]).absolute()
    trust_domain = TrustDomain.open(trust).name
    monitor = Monitor(document["monitor"]["name"], trust_domain, document["monitor"].get("workers", 1))
    federation = federated(base, document.get("federation", []), trust_domain)
    listen = document["listen"]
    ingress = document.get("ingress")
    if ("ingress" in listen) != (ingress is not None):
        raise UsageError(f"{path}: listen.ingress and the section [ingress] go together; one of them is missing")
    bindings, evidence, limits = document["bindings"], document.get("evidence", {}), document.get("limits", {})
    upstream_ca = document.get("interception", {}).get("upstream_ca")
    if upstream_ca is not None and not (base / upstream_ca).is_file():
        raise UsageError(f"interception.upstream_ca: there is no file {base / upstream_ca}")
    domains = {trust_domain, *(one.trust_domain for one in federation)}
    verifier = _verifier(document.get("verifier"), domains)
    audience = [f"spiffe://{trust_domain}/verifier"]
    if verifier is not None and not verifier.name.startswith(f"spiffe://{trust_domain}/"):
        audience.append(verifier.name)
    extensions = load_extensions(document.get("extensions", {}))  # before anything that may speak of them
    return Config(
        path=path,
        digest=digest(_canonical(document)),
        monitor=monitor,
        listen=listening(document),
        ingress=_ingress(ingress) if ingress else None,
        identity=Identity(trust),
        federation=federation,
        interception=Interception(base / upstream_ca if upstream_ca else None),
        targets=_targets(base, document.get("target", []), domains),
        bindings=BindingSettings(
            directory=base / bindings["directory"],
            signers=tuple(base / p for p in bindings.get("signers", [str(trust / "operator.jwk")])),
            allow_unsigned=bindings.get("allow_unsigned", False),
            trust_domain=trust_domain,
        ),
        ledger=LedgerSettings(base / document["ledger"]["path"], document["ledger"].get("durability", "commit")),
        evidence=EvidenceSettings(
            interval_s=float(evidence.get("interval_s", 60)),
            jitter=float(evidence.get("jitter", 0.2)),
            audience=tuple(evidence.get("audience", audience)),
            retention_days=evidence.get("retention_days"),
            signer=base / evidence["signer"].removeprefix("unix:") if "signer" in evidence else None,
        ),
        api=_api(document.get("api", {}), domains),
        witnessing=_witnessing(base, document),
        webhooks=webhooks(base, document.get("webhook", []), trust / "monitors" / monitor.name),
        verifier=verifier,
        extensions=extensions,
        limits=Limits(
            judged_body_bytes=limits.get("judged_body_bytes", 4 * 1024 * 1024),
            websocket_message_bytes=limits.get("websocket_message_bytes", 4 * 1024 * 1024),
            receipt_timeout_s=float(limits.get("receipt_timeout_s", 10)),
            waiting_actions=limits.get("waiting_actions", 1000),
            shutdown_s=float(limits.get("shutdown_s", 5)),
            dns_timeout_s=float(limits.get("dns_timeout_s", 5)),
            head_timeout_s=float(limits.get("head_timeout_s", 30)),
            body_timeout_s=float(limits.get("body_timeout_s", 30)),
            idle_timeout_s=float(limits.get("idle_timeout_s", 120)),
            stream_idle_timeout_s=float(limits.get("stream_idle_timeout_s", 600)),
            upstream_timeout_s=float(limits.get("upstream_timeout_s", 600)),
            connections=limits.get("connections", 4096),
            connections_per_agent=limits.get("connections_per_agent", 512),
            hold_s=float(limits.get("hold_s", 300)),
            held_actions=limits.get("held_actions", 256),
            held_actions_per_agent=limits.get("held_actions_per_agent", 16),
        ),
    )


def _api(table: dict[str, Any], domains: set[str]) -> ApiSettings:
    for pattern in (auditors := tuple(table.get("auditors", ()))):
        try:
            check_subject(pattern)
        except UsageError as e:
            raise UsageError(f"api.auditors: {e}") from None
        check_known(pattern, "api.auditors", domains)
    return ApiSettings(table.get("entries", False), auditors)


def _canonical(value: Any) -> Any:
    """Settings as they are digested: fractions below 0.00001, which our canonical JSON has no form for, as text."""
    if isinstance(value, dict):
        return {name: _canonical(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_canonical(one) for one in value]
    return repr(value) if isinstance(value, float) and 0 < value < 1e-5 else value


def _ingress(table: dict[str, str]) -> Ingress:
    try:
        upstream = parse_url(table["upstream"])
    except FormatError as e:
        raise UsageError(f"ingress.upstream: {e}") from None
    return Ingress(
        spiffe_id(table["agent"], "ingress.agent"), table["urn"], f"http://{host_text(upstream.host)}:{upstream.port}"
    )


def _origin(text: str, key: str) -> str:
    """The origin of an https URL that has no path of its own. Raises UsageError."""
    try:
        url = parse_url(text)
    except FormatError as e:
        raise UsageError(f"{key}: {e}") from None
    if url.scheme != "https" or url.path != "/" or url.query:
        raise UsageError(f"{key}: expected https://host:port, found {text}")
    return f"https://{host_text(url.host)}:{url.port}"


def _targets(base: Path, tables: list[dict[str, Any]], domains: set[str]) -> tuple[Target, ...]:
    """The targets. One connection has one identity, so all that share an authority must name the same files."""
    targets = tuple(_target(base, i, t) for i, t in enumerate(tables))
    for index, target in enumerate(targets):
        domain = target.trust_domain
        if domain is not None and domain not in domains and target.ca is None:
            raise UsageError(
                f"target[{index}].agent is of the trust domain {domain}, whose CA is not known: name its trust bundle "
                "in [[federation]], or a ca here"
            )
    seen: dict[str, tuple[int, object]] = {}
    for index, target in enumerate(targets):
        identity = (target.ca, target.client_cert, target.client_key, target.trust_domain, target.monitor)
        for authority in {pattern.split("/")[2] for pattern in target.match if pattern.count("/") > 2}:
            other, named = seen.setdefault(authority, (index, identity))
            if named != identity:
                raise UsageError(
                    f"target[{other}] and target[{index}] on {authority} differ in ca, client_cert, client_key, "
                    "agent or monitor; one connection has one identity, so they must be the same"
                )
    return targets


def _witnessing(base: Path, document: dict[str, Any]) -> Witnessing:
    settings, witnesses = document.get("witnessing", {}), []
    for index, table in enumerate(document.get("witness", [])):
        ca = base / table["ca"] if "ca" in table else None
        if ca is not None and not ca.is_file():
            raise UsageError(f"witness[{index}].ca: there is no file {ca}")
        try:
            witness = Witness.parse(table["key"])
        except FormatError as e:
            raise UsageError(f"witness[{index}].key: {e}: `lictor witness key` prints one") from None
        witnesses.append(WitnessSettings(table["url"].rstrip("/"), witness, ca))
    quorum = settings.get("quorum", 1)
    if witnesses:
        try:
            CheckpointPolicy(tuple(w.witness for w in witnesses), quorum)
        except UsageError as e:
            raise UsageError(f"witnessing.quorum: {e}") from None
    return Witnessing(tuple(witnesses), float(settings.get("interval_s", 10)), quorum)


def _verifier(table: dict[str, str] | None, domains: set[str]) -> VerifierSettings | None:
    if table is None:
        return None
    name = spiffe_id(table["name"], "verifier.name")
    check_known(name, "verifier.name", domains)
    return VerifierSettings(table["url"].rstrip("/"), name)


def _target(base: Path, index: int, table: dict[str, Any]) -> Target:
    agent = table.get("agent")
    if agent is not None and table["kind"] != "agent":
        raise UsageError(f"target[{index}].agent belongs to a target of kind agent, not {table['kind']}")
    files = {name: base / table[name] for name in ("client_cert", "client_key", "ca") if name in table}
    for name, file in files.items():
        if not file.is_file():
            raise UsageError(f"target[{index}].{name}: there is no file {file}")
    passthrough = table.get("passthrough", False)
    return Target(
        urn=table["urn"],
        kind=table["kind"],
        match=tuple(table["match"]),
        protocol=table.get("protocol", "a2a" if table["kind"] == "agent" and not passthrough else "http"),
        agent_id=spiffe_id(agent, f"target[{index}].agent") if agent else None,
        passthrough=passthrough,
        lists=table.get("lists", "allowed"),
        pins=base / table["pins"] if "pins" in table else None,
        changed_tools=table.get("changed_tools", "deny"),
        evidence=_origin(table["evidence"], f"target[{index}].evidence") if "evidence" in table else None,
        monitor=spiffe_id(table["monitor"], f"target[{index}].monitor") if "monitor" in table else None,
        **files,
    )
