"""The trust domain as a directory: the CAs, the operator's key, agents, monitors, Verifiers, the revocation list.

    domain.toml                         trust_domain = "..."
    identity-ca.pem, identity-ca.key    signs identities and evidence certificates
    interception-root.pem, .key         what agents trust for intercepted TLS; never signs an identity
    crl.pem                             signed by the identity CA, always there
    operator.key, operator.jwk          Ed25519, signs bindings
    agents/NAME/cert.pem, key.pem
    monitors/NAME/cert.pem, key.pem, evidence.key, evidence.pem, interception.pem
    monitors/NAME/evidence.previous.key, evidence-SERIAL.pem    after rotate_evidence
    verifiers/NAME/cert.pem, key.pem, evidence.key, evidence.pem

Directories are 0700 and private keys 0600. Files appear whole (written beside, then renamed).
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519

from ..formats.errors import FormatError, UsageError, VerificationError
from ..formats.keys import to_jwk, write_private
from ..formats.spiffe import SpiffeId, parse_trust_domain
from . import monitors
from .authority import CLIENT_AUTH, Issuer, create_root, issue, new_key, pem, read_certificate, revoked_entry, sign_crl
from .files import make_directory, write_atomically
from .monitors import MonitorFiles
from .revocation import load_crl

AGENT_DAYS = 30
MONITOR_DAYS = 90
ROOT_DAYS = 3650
CRL_DAYS = 90
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class AgentFiles:
    """Where an agent's certificate and key are."""

    name: str
    spiffe_id: SpiffeId
    cert: Path
    key: Path


@dataclass(frozen=True, slots=True)
class AgentInfo:
    """An agent's present certificate. Times are in UTC."""

    name: str
    spiffe_id: SpiffeId
    serial: int
    not_before: datetime
    not_after: datetime
    revoked: bool

    def usable(self, now: datetime) -> bool:
        """Whether a monitor would take it at `now`."""
        return not self.revoked and self.not_before <= now <= self.not_after


@dataclass(frozen=True, slots=True)
class TrustDomain:
    """An opened trust domain directory. Methods that sign read the CA's key when they run, and keep none."""

    path: Path
    name: str

    @classmethod
    def create(cls, path: Path, name: str) -> TrustDomain:
        """Make the directory with CAs, operator's key and an empty revocation list.

        Raises UsageError if `path` exists and is not empty, or if `name` is not a SPIFFE trust domain.
        """
        _check_trust_domain(name)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise UsageError(f"{path} exists already: choose another directory, or open this one")
        path.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        try:
            _fill(made, name)
            os.rename(made, path)
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            raise
        return cls(path, name)

    @classmethod
    def open(cls, path: Path) -> TrustDomain:
        """Raises UsageError if `path` is not a trust domain directory."""
        try:
            settings = tomllib.loads((path / "domain.toml").read_text("utf-8"))
        except FileNotFoundError:
            raise UsageError(
                f"{path} is not a trust domain (no domain.toml there): make one with lictor init"
            ) from None
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as e:
            raise UsageError(f"{path / 'domain.toml'} cannot be read: {e}") from None
        name = settings.get("trust_domain")
        if set(settings) != {"trust_domain"} or not isinstance(name, str):
            raise UsageError(f"{path / 'domain.toml'} must hold trust_domain, a string, and nothing else")
        _check_trust_domain(name)
        return cls(path, name)

    @property
    def identity_ca(self) -> Path:
        """The certificate that identities, evidence and revocation are verified with."""
        return self.path / "identity-ca.pem"

    @property
    def interception_root(self) -> Path:
        """The certificate that agents trust for intercepted TLS."""
        return self.path / "interception-root.pem"

    @property
    def crl(self) -> Path:
        """The revocation list."""
        return self.path / "crl.pem"

    @property
    def operator_key(self) -> Path:
        """The Ed25519 key that signs bindings."""
        return self.path / "operator.key"

    @property
    def operator_jwk(self) -> Path:
        """The public part of `operator_key`."""
        return self.path / "operator.jwk"

    def agent_id(self, name: str) -> SpiffeId:
        """`spiffe://<trust domain>/agent/<name>`. Raises UsageError if `name` is not one path segment."""
        return SpiffeId(self.name, f"/agent/{_checked(name)}")

    def monitor_id(self, name: str) -> SpiffeId:
        """`spiffe://<trust domain>/monitor/<name>`. Raises UsageError if `name` is not one path segment."""
        return SpiffeId(self.name, f"/monitor/{_checked(name)}")

    def verifier_id(self, name: str) -> SpiffeId:
        """`spiffe://<trust domain>/verifier/<name>`. Raises UsageError if `name` is not one path segment."""
        return SpiffeId(self.name, f"/verifier/{_checked(name)}")

    def add_agent(self, name: str, days: float = AGENT_DAYS) -> AgentFiles:
        """Issue a certificate (clientAuth) and its key. Replaces an expired or revoked one; a good one: UsageError."""
        directory = self.path / "agents" / _checked(name)
        with self._locked():
            if directory.exists():
                self._check_replaceable(name)
            self._replace_agent(name, days)
            self._sign_crl([])
        return self.agent(name)

    def _check_replaceable(self, name: str) -> None:
        info = self._info(name, self._revoked_serials())
        if info.usable(datetime.now(UTC)):
            raise UsageError(
                f"the agent {name} has a certificate until {info.not_after:%Y-%m-%d %H:%M}Z: "
                f"to replace it, first run lictor agent revoke {name}"
            )

    def _replace_agent(self, name: str, days: float) -> None:
        """A new certificate and its key, which change together: the directory is made beside and renamed into place."""
        key, uri = new_key(), x509.UniformResourceIdentifier(str(self.agent_id(name)))
        usages, days = [CLIENT_AUTH], _positive(days)
        cert = issue(self._identity_issuer(), key.public_key(), subject=name, usages=usages, names=[uri], days=days)
        target = self.path / "agents" / name
        made = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=target.parent))
        write_private(made / "key.pem", key)
        write_atomically(made / "cert.pem", pem(cert))
        if target.exists():
            shutil.rmtree(target)
        os.rename(made, target)

    def agent(self, name: str) -> AgentFiles:
        """The files of an agent. Raises UsageError if there is none of that name."""
        identity, directory = self.agent_id(name), self.path / "agents" / name
        if not directory.is_dir():
            known = ", ".join(self._agent_names()) or "none"
            raise UsageError(f"there is no agent {name} in {self.path} (there: {known}): run lictor agent add {name}")
        return AgentFiles(name, identity, directory / "cert.pem", directory / "key.pem")

    def agents(self) -> list[AgentInfo]:
        """Every agent, by name. Raises UsageError or VerificationError if a file cannot be believed."""
        revoked = self._revoked_serials()
        return [self._info(name, revoked) for name in self._agent_names()]

    def revoke_agent(self, name: str) -> AgentInfo:
        """Put the agent's certificate on the revocation list. Revoking twice is no error."""
        with self._locked():
            self.agent(name)
            info = self._info(name, self._revoked_serials())
            if not info.revoked:
                self._sign_crl([info.serial])
        return self._info(name, self._revoked_serials())

    def rotate_agent(self, name: str, days: float = AGENT_DAYS, *, revoke: bool = False) -> AgentInfo:
        """Give the agent a new key and certificate; the one before stays good until it expires, unless `revoke`.

        Raises UsageError if there is no such agent.
        """
        with self._locked():
            self.agent(name)
            before = self._info(name, frozenset()).serial
            self._replace_agent(name, days)
            self._sign_crl([before] if revoke and before not in self._revoked_serials() else [])
        return self._info(name, self._revoked_serials())

    def revoke_monitor(self, name: str) -> MonitorFiles:
        """Put the certificates of the monitor on the revocation list: its identity, and those of its evidence keys."""
        with self._locked():
            files, revoked = self.monitor(name), self._revoked_serials()
            certificates = [files.cert, *files.directory.glob("evidence*.pem")]
            self._sign_crl(sorted({read_certificate(path).serial_number for path in certificates} - revoked))
        return files

    def rotate_evidence(
        self, name: str, days: float = MONITOR_DAYS, *, overlap: bool = True, revoke: bool = False
    ) -> MonitorFiles:
        """Give the monitor a new evidence key. `overlap` keeps the one before, until `retire_evidence`, beside it.

        `revoke` puts the certificate of the one before on the revocation list. Raises UsageError if there is no such
        monitor.
        """
        with self._locked():
            files = self.monitor(name)
            before = read_certificate(files.evidence_cert).serial_number
            if revoke and before not in self._revoked_serials():  # first: broken off here, it can be given again
                self._sign_crl([before])
            monitors.write_evidence(files, _positive(days), self._identity_issuer(), keep_former=overlap)
        return files

    def retire_evidence(self, name: str) -> bool:
        """Delete the monitor's former evidence key; its certificate stays. False if there was none."""
        with self._locked():
            former = self.monitor(name).former_evidence_key
            found = former.exists()
            former.unlink(missing_ok=True)
        return found

    def renew_crl(self) -> None:
        """Sign the revocation list anew, with a new date. Needs the identity CA's key."""
        with self._locked():
            self._sign_crl([])

    def crl_due(self, now: datetime | None = None) -> bool:
        """Whether the revocation list has less than a third of its life left."""
        until = self._load_crl().next_update_utc
        return until is None or until - (now or datetime.now(UTC)) < timedelta(days=CRL_DAYS / 3)

    def add_monitor(self, name: str, hosts: tuple[str, ...] = (), days: float = MONITOR_DAYS) -> MonitorFiles:
        """Issue everything a monitor holds. `hosts`: what its listeners are called, besides loopback's names.

        Raises UsageError if the monitor exists or a host is not a DNS name or an IP address.
        """
        return self._add_server(self.monitor_id(name), hosts, days, self._interception_issuer())

    def add_verifier(self, name: str, hosts: tuple[str, ...] = (), days: float = MONITOR_DAYS) -> MonitorFiles:
        """Issue what a Verifier holds: as `add_monitor`, without anything for interception."""
        return self._add_server(self.verifier_id(name), hosts, days, None)

    def _add_server(
        self, identity: SpiffeId, hosts: tuple[str, ...], days: float, interception: Issuer | None
    ) -> MonitorFiles:
        _, kind, name = identity.path.split("/")
        directory = self.path / f"{kind}s" / name
        with self._locked():
            directory.parent.mkdir(mode=0o700, exist_ok=True)
            if directory.exists():
                raise UsageError(f"the {kind} {name} exists already in {directory}")
            made = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=directory.parent))
            try:
                monitors.fill(made, identity, hosts, _positive(days), self._identity_issuer(), interception)
                os.rename(made, directory)
            except BaseException:
                shutil.rmtree(made, ignore_errors=True)
                raise
        return self._server(identity)

    def monitor(self, name: str) -> MonitorFiles:
        """The files of a monitor. Raises UsageError if there is none of that name."""
        return self._server(self.monitor_id(name))

    def verifier(self, name: str) -> MonitorFiles:
        """The same of a Verifier."""
        return self._server(self.verifier_id(name))

    def _server(self, identity: SpiffeId) -> MonitorFiles:
        kind, name = identity.path[1:].split("/")
        directory = self.path / f"{kind}s" / name
        if not directory.is_dir():
            known = ", ".join(sorted(p.name for p in directory.parent.glob("[!.]*"))) or "none"
            raise UsageError(f"there is no {kind} {name} in {self.path} (there: {known})")
        return MonitorFiles(name, identity, directory)

    def renew_interception(self, name: str) -> MonitorFiles:
        """Replace the monitor's interception intermediate, with a new key. Needs the interception root's key."""
        files = self.monitor(name)
        monitors.write_interception(files.interception, files.spiffe_id, self._interception_issuer())
        return files

    def interception_due(self, name: str, now: datetime | None = None) -> bool:
        """Whether the monitor's interception intermediate has less than a third of its life left."""
        cert = read_certificate(self.monitor(name).interception)
        remaining = cert.not_valid_after_utc - (now or datetime.now(UTC))
        return remaining < timedelta(days=monitors.INTERCEPTION_DAYS / 3)

    def _agent_names(self) -> list[str]:
        return sorted(p.name for p in (self.path / "agents").iterdir() if p.is_dir() and p.name[0] != ".")

    def _info(self, name: str, revoked: frozenset[int]) -> AgentInfo:
        cert = read_certificate(self.path / "agents" / name / "cert.pem")
        serial = cert.serial_number
        dates = cert.not_valid_before_utc, cert.not_valid_after_utc
        return AgentInfo(name, self.agent_id(name), serial, *dates, serial in revoked)

    def _identity_issuer(self) -> Issuer:
        return Issuer.load(self.identity_ca, self.path / "identity-ca.key")

    def _interception_issuer(self) -> Issuer:
        return Issuer.load(self.interception_root, self.path / "interception-root.key")

    def _load_crl(self) -> x509.CertificateRevocationList:
        try:
            data = self.crl.read_bytes()
        except OSError as e:
            raise VerificationError(f"the revocation list {self.crl} cannot be read: {e.strerror}") from None
        return load_crl(data, read_certificate(self.identity_ca), str(self.crl))

    def _revoked_serials(self) -> frozenset[int]:
        return frozenset(entry.serial_number for entry in self._load_crl())

    def _sign_crl(self, more: list[int]) -> None:
        old = self._load_crl()
        number = old.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number + 1
        entries = [*old, *(revoked_entry(serial) for serial in more)]
        write_atomically(self.crl, sign_crl(self._identity_issuer(), entries, number=number, days=CRL_DAYS))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One writer at a time, across processes."""
        descriptor = os.open(self.path / "domain.toml", os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name) or name[0] == ".":
        raise UsageError(
            f"{name!r} is not a name: 1 to 64 of A-Z a-z 0-9 dot dash underscore, the first of them not a dot"
        )
    return name


def _check_trust_domain(name: str) -> None:
    try:
        parse_trust_domain(f"spiffe://{name}")
    except FormatError:
        raise UsageError(f"{name!r} is not a trust domain: a-z, 0-9, dot, dash, underscore") from None


def _positive(days: float) -> float:
    if not 0 < days <= ROOT_DAYS:
        raise UsageError(f"{days} is not a number of days from more than 0 to {ROOT_DAYS}")
    return days


def _fill(directory: Path, name: str) -> None:
    identity = create_root(f"identities of {name}", days=ROOT_DAYS, path_length=0, uri=f"spiffe://{name}")
    interception = create_root(f"interception of {name}", days=ROOT_DAYS, path_length=1)
    for stem, issuer in (("identity-ca", identity), ("interception-root", interception)):
        write_atomically(directory / f"{stem}.pem", pem(issuer.cert))
        write_private(directory / f"{stem}.key", issuer.key)
    write_atomically(directory / "crl.pem", sign_crl(identity, [], number=1, days=CRL_DAYS))
    operator = ed25519.Ed25519PrivateKey.generate()
    write_private(directory / "operator.key", operator)
    write_atomically(directory / "operator.jwk", json.dumps(to_jwk(operator.public_key()), indent=2).encode() + b"\n")
    make_directory(directory / "agents")
    make_directory(directory / "monitors")
    write_atomically(directory / "domain.toml", f'trust_domain = "{name}"\n'.encode())
