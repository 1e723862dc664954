"""Keys, a token smith for good and bad tokens, and a ledger in a temporary directory."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lictor.evidence.ledger import Ledger
from lictor.evidence.sqlite_store import SqliteStore
from lictor.formats import base64url
from lictor.formats.errors import VerificationError
from lictor.formats.jws import PublicKey
from lictor.formats.keys import KeySigner

MONITOR = "spiffe://example.test/monitor/one"


class Keys:
    """A resolver that knows one key of each issuer."""

    def __init__(self, **known: KeySigner) -> None:
        self.known = {(signer.kid, iss): signer for iss, signer in known.items()}

    def __call__(self, kid: str, iss: str, at: float | None = None) -> PublicKey:
        if (kid, iss) not in self.known:
            raise VerificationError(f"no key {kid!r} of {iss!r} is known")
        return self.known[kid, iss].public_key()


def smith(signer: KeySigner) -> Callable[..., str]:
    """Makes tokens of exactly the given header and claims, whatever is wrong with them."""

    def forge(header: dict[str, Any] | None, claims: dict[str, Any] | bytes, **changes: Any) -> str:
        full = {"alg": signer.alg, "kid": signer.kid, **(header or {})}
        payload = claims if isinstance(claims, bytes) else json.dumps({**claims, **changes}).encode()
        signing_input = f"{base64url.encode(json.dumps(full).encode())}.{base64url.encode(payload)}"
        return f"{signing_input}.{base64url.encode(signer.sign(signing_input.encode()))}"

    return forge


@pytest.fixture(scope="session")
def signer() -> KeySigner:
    return KeySigner.of(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))


@pytest.fixture(scope="session")
def keys(signer: KeySigner) -> Keys:
    return Keys(**{MONITOR: signer})


@pytest.fixture(scope="session")
def forge(signer: KeySigner) -> Callable[..., str]:
    return smith(signer)


@pytest.fixture
def open_ledger(tmp_path: Path, signer: KeySigner) -> Callable[[], tuple[Ledger, SqliteStore]]:
    """Opens the same ledger again each time; whoever opens closes."""

    def make() -> tuple[Ledger, SqliteStore]:
        store = SqliteStore(tmp_path / "recorder.db")
        return Ledger.open(store, "example.test/monitor/one", signer), store

    return make


@pytest.fixture
async def opened(open_ledger: Callable[[], tuple[Ledger, SqliteStore]]) -> AsyncIterator[tuple[Ledger, SqliteStore]]:
    ledger, store = open_ledger()
    yield ledger, store
    await ledger.close()
