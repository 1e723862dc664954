"""Other trust domains whose monitors and evidence are believed, by their bundles, which are read anew when they change.

Each is believed about itself alone: a certificate of theirs that names this domain, or a third one, is nobody's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from cryptography import x509

from ..formats.errors import FormatError, LictorError, UsageError, VerificationError
from ..formats.jws import PublicKey
from ..formats.spiffe import parse_trust_domain, trust_domain
from ..formats.watched import Watched
from .anchors import check_apart, trust_domain_of
from .bundle import Bundle, read_bundle

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Federated:
    """One table `[[federation]]`: a trust domain, and the file with its bundle."""

    trust_domain: str
    bundle: Path


def federated(base: Path, tables: Iterable[dict[str, str]], own: str) -> tuple[Federated, ...]:
    """The checked tables of a configuration in the folder `base`. Raises UsageError."""
    found: dict[str, Federated] = {}
    for index, table in enumerate(tables):
        name, where = table["trust_domain"], f"federation[{index}]"
        try:
            parse_trust_domain(f"spiffe://{name}")
        except FormatError:
            raise UsageError(f"{where}.trust_domain: {name!r} is not a trust domain: a-z, 0-9, dot, dash, _") from None
        if name == own:
            raise UsageError(f"{where}.trust_domain: {name} is our own; a bundle is for another's")
        if name in found:
            raise UsageError(f"{where}.trust_domain: {name} has a table already; a trust domain has one bundle")
        found[name] = Federated(name, base / table["bundle"])
    return tuple(found.values())


def partners_among(tables: Iterable[Federated], named: Iterable[str]) -> tuple[Federated, ...]:
    """Those of whose trust domain a SPIFFE ID, or a pattern, is that is named."""
    domains = set(map(trust_domain, named))
    return tuple(one for one in tables if one.trust_domain in domains)


def check_known(name: str, key: str, domains: Container[str]) -> None:
    """Raises UsageError unless a SPIFFE ID, or a pattern, that is the value of `key` is of one of these trust domains.

    They are those whose CA is known.
    """
    domain = trust_domain(name)
    if domain not in domains:
        raise UsageError(
            f"{key}: {name} is of the trust domain {domain}, whose CA is not known: name its trust bundle in "
            "[[federation]]"
        )


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Partners:
    """The bundles in force. Look-ups are cheap; call `refresh` where a change has to be seen."""

    def __init__(
        self,
        own_ca: x509.Certificate,
        tables: Iterable[Federated],
        clock: Callable[[], datetime] = _utc_now,
        *,
        strict: bool = False,
    ) -> None:
        """A bundle that cannot be taken is logged, and nobody of its trust domain believed until another comes.

        `strict`: it raises UsageError or VerificationError; it may still be out of date.
        """
        self._own_ca = own_ca
        self._followers: list[Callable[[Bundle], None]] = []
        self._clock = clock
        self._strict = strict
        self._taken = 0
        self._watched: dict[str, Watched[Bundle | None]] = {}
        for table in tables:
            load = partial(self._load, table)
            files = partial(lambda path: (path,), table.bundle)
            self._watched[table.trust_domain] = Watched(f"the trust bundle {table.bundle}", files, load)
        for name in self._watched:
            try:
                self.bundle(name)
            except VerificationError as e:
                log.warning("nobody of the trust domain %s is believed: %s", name, e)

    def _load(self, table: Federated) -> Bundle | None:
        if table.trust_domain in self._watched or self._strict:
            return self._read(table)
        try:
            return self._read(table)
        except LictorError as e:
            log.error("%s", e)
            return None

    def _read(self, table: Federated) -> Bundle:
        found = read_bundle(table.bundle)
        name = table.trust_domain
        if found.trust_domain != name:
            raise VerificationError(f"{table.bundle} is the bundle of {found.trust_domain}, expected that of {name}")
        known = self._known()
        check_apart(
            name, found.ca, {trust_domain_of(self._own_ca): self._own_ca, **{n: b.ca for n, b in known.items()}}
        )
        former = known.get(name)
        if former is not None:
            found.check_current(self._clock())
            if found.ca == former.ca and found.revoked.number < former.revoked.number:
                raise VerificationError(
                    f"{table.bundle} is older than the bundle in force: its revocation list is number "
                    f"{found.revoked.number}, expected {former.revoked.number} or later"
                )
        return found

    def _known(self) -> dict[str, Bundle]:
        return {name: watched.current for name, watched in self._watched.items() if watched.current is not None}

    def __contains__(self, trust_domain: str) -> bool:
        return trust_domain in self._watched

    def follow(self, take: Callable[[Bundle], None]) -> None:
        """Have `take` called with every bundle in force, now and when another comes."""
        self._followers.append(take)
        for bundle in self._known().values():
            take(bundle)

    def refresh(self) -> None:
        """Take bundles whose files changed. What cannot be taken is logged, once, and changes nothing. Never raises."""
        for watched in self._watched.values():
            if watched.poll() and watched.current is not None:
                self._taken += 1
                log.warning("took a new trust bundle of %s", watched.current.trust_domain)
                for take in self._followers:
                    take(watched.current)

    def bundle(self, trust_domain: str) -> Bundle:
        """What may be relied on now. Raises VerificationError if it is no partner's, or its bundle is out of date."""
        watched = self._watched.get(trust_domain)
        if watched is None:
            raise VerificationError(f"the trust domain {trust_domain} is none that is federated with")
        if watched.current is None:
            raise VerificationError(f"there is no trust bundle of {trust_domain} that can be relied on")
        watched.current.check_current(self._clock())
        return watched.current

    def now(self, trust_domain: str) -> Bundle:
        """What may be relied on now, with a look at the files. Raises like `bundle`."""
        self.refresh()
        return self.bundle(trust_domain)

    def state(self, trust_domain: str) -> tuple[int, bool]:
        """What changes when another bundle is taken or one runs out."""
        bundle = self._watched[trust_domain].current
        return self._taken, bundle is not None and bundle.revoked.is_current(self._clock())

    def speaks_for(self, spiffe_id: str) -> bool:
        """Whether this is a SPIFFE ID of a partner."""
        return trust_domain(spiffe_id) in self._watched

    def resolve(self, kid: str, iss: str, at: float | None = None) -> PublicKey:
        """The evidence key `kid` of a partner's monitor. Raises VerificationError (see `EvidenceKeys.resolve`)."""
        return self.now(trust_domain(iss)).evidence.resolve(kid, iss, at)
