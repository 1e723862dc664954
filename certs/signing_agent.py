"""A signing key in a process of its own, behind a Unix socket: the monitor asks it and never sees the key.

A request is one octet (`K` for the public key, `S` to sign), four octets of length and as many octets; an answer is one
octet (`+`, or `-` with a sentence), a length and as many octets. A connection carries any number of requests, one after
the other. The socket has the mode 0600, and the kernel says who is at the other end (SO_PEERCRED).
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import struct
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from ..formats import strict_json
from ..formats.errors import FormatError, LedgerError, UsageError, VerificationError
from ..formats.jws import PublicKey, Signer, verify_raw
from ..formats.keys import from_jwk, to_jwk

log = logging.getLogger(__name__)

MAX_SIGNED = 1 << 20
"""Octets of the longest text that is signed."""
TIMEOUT_S = 2.0
"""How long the monitor waits for a signature before it takes the agent for gone."""
MAX_CLIENTS = 16
_HEAD = struct.Struct("!cI")
_CREDENTIALS = struct.Struct("3i")


class SocketSigner:
    """The `Signer` whose key an agent process holds. Thread-safe. Signing blocks for one exchange over the socket."""

    def __init__(self, path: Path) -> None:
        """Ask the agent for its public key. Raises UsageError if it cannot be asked."""
        self._path = path
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        try:
            jwk = strict_json.loads_object(self._ask(b"K", b""))
            self._key = from_jwk(jwk)
            self._jwk = to_jwk(self._key)
        except (LedgerError, FormatError) as e:
            raise UsageError(f"evidence.signer: {e}; start it with lictor signer up") from None

    @property
    def kid(self) -> str:
        return str(self._jwk["kid"])

    @property
    def alg(self) -> str:
        return str(self._jwk["alg"])

    def public_key(self) -> PublicKey:
        return self._key

    def sign(self, data: bytes) -> bytes:
        """Raises LedgerError if the agent is gone, refuses, or has another key now: nothing may be let out then."""
        signature = self._ask(b"S", data)
        try:
            verify_raw(self.alg, data, signature, self._key)
        except VerificationError as e:
            raise LedgerError(f"the signing agent at {self._path} answers with what is no signature: {e}") from None
        return signature

    def _ask(self, kind: bytes, data: bytes) -> bytes:
        with self._lock:
            reused = self._socket is not None
            try:
                return self._exchange(kind, data)
            except OSError as e:
                self._close()
                if not reused:
                    raise LedgerError(f"the signing agent at {self._path} does not answer: {e}") from None
            try:  # the agent was started again since
                return self._exchange(kind, data)
            except OSError as e:
                self._close()
                raise LedgerError(f"the signing agent at {self._path} does not answer: {e}") from None

    def _exchange(self, kind: bytes, data: bytes) -> bytes:
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._socket.settimeout(TIMEOUT_S)
            self._socket.connect(str(self._path))
        with contextlib.suppress(BrokenPipeError):  # one that refuses this user may have said so and hung up already
            self._socket.sendall(_HEAD.pack(kind, len(data)) + data)
        status, size = _HEAD.unpack(_receive(self._socket, _HEAD.size))
        if size > MAX_SIGNED:
            raise ConnectionError("the answer is too long")
        answer = _receive(self._socket, size)
        if status != b"+":
            raise LedgerError(f"the signing agent at {self._path} refuses: {answer.decode('utf-8', 'replace')[:200]}")
        return answer

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _receive(sock: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = sock.recv(size - len(parts))
        if not part:
            raise ConnectionError("the connection was closed")
        parts += part
    return bytes(parts)


class SigningAgent:
    """Holds a key and signs for processes of the given users, at most `rate` signatures a second on average."""

    def __init__(self, signer: Signer, path: Path, users: Iterable[int], rate: float) -> None:
        """Bind the socket. Raises UsageError if it cannot be made or another agent serves it."""
        self._signer = signer
        self._users = frozenset(users)
        self._rate, self._tokens, self._filled = rate, rate, time.monotonic()
        self._lock = threading.Lock()
        self._slots = threading.BoundedSemaphore(MAX_CLIENTS)
        self._path = path
        self._listener = _bind(path)
        self.signed = self.refused = 0
        """Signatures that were given and requests that were refused so far."""

    def serve(self) -> None:
        """Answer until `close` is called from another thread or a signal handler."""
        log.info("signs with the key %s at %s for the users %s", self._signer.kid, self._path, sorted(self._users))
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._slots.acquire(blocking=False):
                threading.Thread(target=self._client, args=(client,), daemon=True).start()
            else:
                log.warning("refused a connection: %d are open already", MAX_CLIENTS)
                client.close()

    def close(self) -> None:
        """Take the socket away. Connections that are open end with the process."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._path.unlink(missing_ok=True)
        log.info("ended after %d signatures, %d refused", self.signed, self.refused)

    def _client(self, client: socket.socket) -> None:
        try:
            with client:
                pid, uid, _ = _CREDENTIALS.unpack(
                    client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
                )
                log.info("process %d of user %d connected", pid, uid)
                if uid not in self._users:
                    self._refuse(client, f"user {uid} may not use this key")
                    return
                while self._answer(client):
                    pass
        except OSError as e:
            log.info("a connection ended: %s", e)
        finally:
            self._slots.release()

    def _answer(self, client: socket.socket) -> bool:
        """One request; False ends the connection."""
        try:
            kind, size = _HEAD.unpack(_receive(client, _HEAD.size))
        except ConnectionError:
            return False
        if kind not in (b"K", b"S") or size > MAX_SIGNED:
            self._refuse(client, f"not a request, or one of more than {MAX_SIGNED} octets")
            return False
        data = _receive(client, size)
        if kind == b"K":
            _reply(client, json.dumps(to_jwk(self._signer.public_key())).encode())
            return True
        if not self._take():
            self._refuse(client, f"more than {self._rate:g} signatures a second are asked for")
            return True
        _reply(client, self._signer.sign(data))
        return True

    def _take(self) -> bool:
        """One token of the bucket, which holds those of one second."""
        with self._lock:
            now = time.monotonic()
            self._tokens = min(self._rate, self._tokens + (now - self._filled) * self._rate)
            self._filled = now
            if self._tokens < 1:
                return False
            self._tokens -= 1
            self.signed += 1
            return True

    def _refuse(self, client: socket.socket, why: str) -> None:
        with self._lock:
            self.refused += 1
        log.warning("refused: %s", why)
        text = why.encode()
        client.sendall(_HEAD.pack(b"-", len(text)) + text)


def _reply(client: socket.socket, data: bytes) -> None:
    client.sendall(_HEAD.pack(b"+", len(data)) + data)


def _bind(path: Path) -> socket.socket:
    """A listening socket at `path`, in the place of a dead agent's."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.connect(str(path))
            raise UsageError(f"another process serves {path}: stop it first, or name another socket")
        if path.is_socket():
            path.unlink()
        sock.bind(str(path))
        os.chmod(path, 0o600)  # before `listen`: until then nobody can connect
        sock.listen(MAX_CLIENTS)
    except OSError as e:
        sock.close()
        raise UsageError(f"the socket {path} cannot be made: {e.strerror or e}") from None
    except UsageError:
        sock.close()
        raise
    return sock
