"""Reads the log of one monitor by its API (`proxy/outside/api`: checkpoint, tiles, keys), over mutual TLS.

What comes is bounded and nothing of it is believed: checkpoints are verified by keys that the CA vouches for, tiles by
the tree that was signed (`tiles`).
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ...certs.contexts import client_context
from ...certs.listener import Listener
from ...certs.servers import ExpectedServer
from ...evidence.checkpoint import Checkpoint, Verifier, verify_checkpoint
from ...evidence.merkle import leaf_hash
from ...evidence.tiles import MAX_BUNDLED, WIDTH, Tile
from ...formats import strict_json
from ...formats.cosignature import CheckpointPolicy
from ...formats.errors import FormatError, LictorError, VerificationError
from ...formats.signed_note import MAX_NOTE, parse_note
from ..proof import log_keys
from ..urls import https_address
from .tiles import Missing, Tiles, Tree, Unchecked

ANSWER_S = 10.0
MAX_KEYS = 1 << 20
MAX_TILE = 1 << 13
MAX_BUNDLE = WIDTH * (2 + MAX_BUNDLED)


@dataclass(frozen=True, slots=True)
class Shown:
    """A checkpoint that the log signed; `witnessed`: so did enough witnesses."""

    tree: Tree
    witnessed: bool


class LogClient:
    """Used by one thread at a time. Every method raises Unchecked if the log cannot be read."""

    def __init__(self, monitor: str, url: str, listener: Listener) -> None:
        """`listener`: by whose certificate it asks. Raises UsageError and VerificationError for files."""
        self.monitor = monitor
        self._origin = monitor.removeprefix("spiffe://")
        known = listener.trust_domain, listener.ca, listener.crl, listener.partners
        self._server = ExpectedServer(monitor, *known)
        self._context = client_context(listener.ca, listener.cert, listener.key)
        self._server.trust(self._context)
        self._address = https_address(url, "a log is at")
        self._connection: http.client.HTTPSConnection | None = None
        self._given_up = threading.Event()
        self._keys: list[Verifier] = []
        self._tiles: Tiles | None = None

    def shown(self, policy: CheckpointPolicy | None) -> Shown:
        """The checkpoint that it serves now."""
        self._check_open()
        try:
            note = self._get("/checkpoint", MAX_NOTE).decode()
            checkpoint = self._verified(note)
            witnessed = policy is not None and policy.holds(parse_note(note))
        except (FormatError, VerificationError, UnicodeDecodeError) as e:
            raise Unchecked(f"its checkpoint cannot be relied on: {e}") from None
        tree = Tree(checkpoint.size, checkpoint.root)
        if self._tiles is not None and tree.size < self._tiles.tree.size:
            self._tiles = None  # whether it still has them is to be seen
        return Shown(tree, witnessed)

    def tiles(self, tree: Tree) -> Tiles:
        """Its tiles, of this tree. Raises Missing if it says that it has them not."""
        if self._tiles is None or self._tiles.tree != tree:
            self._tiles = Tiles(tree, self._tile)
        return self._tiles

    def entries(self, tree: Tree, first: int, end: int) -> Iterator[tuple[int, bytes]]:
        """Its entries, each proven to be in this tree. Raises Unchecked also if it serves none."""
        tiles = self.tiles(tree)
        for index in range(first // WIDTH, -(-end // WIDTH)):
            width = min(WIDTH, tree.size - index * WIDTH)
            bundle = self._get(f"/tile/{Tile(None, index, width)}", MAX_BUNDLE)
            for seq, data in enumerate(_split(bundle, width), index * WIDTH):
                if leaf_hash(data) != tiles.hashes(0, seq, 1)[0]:
                    raise Unchecked(f"the entry {seq} that it serves is not the one of its log")
                if first <= seq < end:
                    yield seq, data

    def begin(self) -> None:
        """From another thread, while nothing is read: from now on it may be."""
        self._given_up.clear()

    def abort(self) -> None:
        """From another thread: whatever is waited for ends now, and nothing more is asked."""
        self._given_up.set()
        connection = self._connection
        if connection is not None and connection.sock is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)

    def _check_open(self) -> None:
        """Who answers on a connection that is open may have been revoked since."""
        if self._connection is None or self._connection.sock is None:
            return
        try:
            self._server.check(self._connection.sock.getpeercert(True))
        except LictorError as e:
            self._close()
            raise Unchecked(str(e)) from None

    def _close(self) -> None:
        """The next question opens another connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _verified(self, note: str) -> Checkpoint:
        try:
            return verify_checkpoint(note, self._origin, self._keys)
        except VerificationError:
            # Keys are exchanged now and then; those that were good stay good no longer than the monitor shows them.
            jwks = strict_json.loads_object(self._get("/jwks.json", MAX_KEYS)).get("keys")
            self._keys = log_keys(_objects(jwks), self._origin, self._server.ca_pem())
            return verify_checkpoint(note, self._origin, self._keys)

    def _tile(self, tile: Tile) -> bytes:
        return self._get(f"/tile/{tile}", MAX_TILE)

    def _get(self, path: str, limit: int) -> bytes:
        try:
            connection = self._connection or self._connected()
            if self._given_up.is_set():  # after the connection is there to be ended, so that no `abort` is missed
                self._close()
                raise Unchecked("it was given up")
            connection.request("GET", path)
            answer = connection.getresponse()
            data = answer.read(limit + 1)
        except (OSError, ValueError, http.client.HTTPException) as e:
            self._close()
            raise Unchecked(f"it does not answer: {e or type(e).__name__}") from None
        if len(data) > limit:
            self._close()
            raise Unchecked(f"its answer to {path} has more than {limit} octets")
        if answer.will_close:
            self._close()
        if answer.status == 200:
            return data
        said = data[:200].decode("utf-8", "replace").strip()
        raise (Missing if answer.status == 404 else Unchecked)(f"it answers {answer.status} to {path} ({said})")

    def _connected(self) -> http.client.HTTPSConnection:
        host, port = self._address
        self._connection = made = http.client.HTTPSConnection(host, port, context=self._context, timeout=ANSWER_S)
        made.auto_open = 0  # it would connect again by itself, and nobody would look at who answers
        self._server.refresh()
        try:
            made.connect()
            self._server.check(made.sock.getpeercert(True))
        except LictorError as e:
            self._close()
            raise Unchecked(str(e)) from None
        return made


def _split(bundle: bytes, count: int) -> Iterator[bytes]:
    """The entries of a bundle: two octets of length before each. Raises Unchecked if there are not `count`."""
    at = 0
    for _ in range(count):
        end = at + 2 + int.from_bytes(bundle[at : at + 2])
        if at + 2 > len(bundle) or end > len(bundle):
            raise Unchecked("a bundle of entries ends too early")
        yield bundle[at + 2 : end]
        at = end


def _objects(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise FormatError("its keys are no JWK Set")
    return value
