"""What a monitor holds: its identity, its evidence key, and the intermediate that signs intercepted TLS."""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from ..formats.errors import UsageError
from ..formats.keys import write_private
from ..formats.spiffe import SpiffeId
from .authority import (
    CLIENT_AUTH,
    DOCUMENT_SIGNING,
    SERVER_AUTH,
    Issuer,
    create_intermediate,
    issue,
    new_key,
    pem,
    read_certificate,
)
from .files import write_atomically

INTERCEPTION_DAYS = 30
LOOPBACK = ("localhost", "127.0.0.1", "::1")
_DNS_NAME = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*", re.ASCII
)


@dataclass(frozen=True, slots=True)
class MonitorFiles:
    """Where the certificates and keys of a monitor are, or of a Verifier, which has none of `interception`."""

    name: str
    spiffe_id: SpiffeId
    directory: Path

    @property
    def cert(self) -> Path:
        """Its identity: clientAuth and serverAuth, the SPIFFE ID and the listeners' names."""
        return self.directory / "cert.pem"

    @property
    def key(self) -> Path:
        """The key of `cert`, for the workers."""
        return self.directory / "key.pem"

    @property
    def evidence_key(self) -> Path:
        """Ed25519, for the control process only."""
        return self.directory / "evidence.key"

    @property
    def former_evidence_key(self) -> Path:
        """The one before, while an exchange lasts; checkpoints bear its signature too."""
        return self.directory / "evidence.previous.key"

    @property
    def evidence_cert(self) -> Path:
        """The identity CA's word for the evidence key."""
        return self.directory / "evidence.pem"

    @property
    def interception(self) -> Path:
        """Key, intermediate, root: what mitmproxy reads as mitmproxy-ca.pem. Renewed in place."""
        return self.directory / "interception.pem"


def host_name(text: str) -> x509.GeneralName:
    """A DNS or IP subject alternative name. Raises UsageError for what is neither."""
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        pass
    if not _DNS_NAME.fullmatch(text.lower()):
        raise UsageError(f"{text!r} is neither a DNS name nor an IP address")
    return x509.DNSName(text.lower())


def fill(
    directory: Path, identity: SpiffeId, hosts: tuple[str, ...], days: float, ca: Issuer, interception: Issuer | None
) -> None:
    """Write a monitor's certificates and keys into an empty directory; without `interception`, those of a Verifier."""
    names = [host_name(host) for host in dict.fromkeys((*LOOPBACK, *hosts))]
    subject = identity.path.rpartition("/")[2]
    key = new_key()
    usages, uri = [CLIENT_AUTH, SERVER_AUTH], x509.UniformResourceIdentifier(str(identity))
    cert = issue(ca, key.public_key(), subject=subject, usages=usages, names=[uri, *names], days=days)
    write_private(directory / "key.pem", key)
    write_atomically(directory / "cert.pem", pem(cert))
    write_evidence(MonitorFiles(subject, identity, directory), days, ca)
    if interception is not None:
        write_interception(directory / "interception.pem", identity, interception)


def write_evidence(files: MonitorFiles, days: float, ca: Issuer, *, keep_former: bool = False) -> None:
    """Make a new evidence key and its certificate. The certificate of the one before stays, under its serial number.

    `keep_former` keeps the key before too. The certificate comes last: a monitor takes key and certificate when they
    fit each other.
    """
    evidence = ed25519.Ed25519PrivateKey.generate()
    uri = x509.UniformResourceIdentifier(str(files.spiffe_id))
    subject = f"{files.spiffe_id.path.rpartition('/')[2]} evidence"
    cert = issue(ca, evidence.public_key(), subject=subject, usages=[DOCUMENT_SIGNING], names=[uri], days=days)
    if files.evidence_cert.exists():
        former = read_certificate(files.evidence_cert)
        write_atomically(files.directory / f"evidence-{former.serial_number:x}.pem", pem(former))
        if keep_former:
            os.replace(files.evidence_key, files.former_evidence_key)
        else:
            files.former_evidence_key.unlink(missing_ok=True)
            files.evidence_key.unlink(missing_ok=True)
    write_private(files.evidence_key, evidence)
    write_atomically(files.evidence_cert, pem(cert))


def write_interception(path: Path, identity: SpiffeId, root: Issuer) -> None:
    """Make a new intermediate (30 days) and write key, intermediate and root.

    The root is part of the file because mitmproxy sends a chain only when the file holds more than one certificate.
    """
    subject = f"{identity.path.rpartition('/')[2]} interception"
    intermediate = create_intermediate(root, subject, days=INTERCEPTION_DAYS)
    key = intermediate.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    write_atomically(path, key + pem(intermediate.cert) + pem(root.cert), private=True)
