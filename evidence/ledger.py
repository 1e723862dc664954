"""The ledger: the one writer of the action log. It gives out order and time, and says when an entry is durable.

Adding is synchronous and cheap; writing happens in one thread. While a batch is being written the next one collects, so
a commit costs one disk sync however many entries wait for it. Everything added between two awaits is in one batch.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from typing import Any

from orjson import dumps

from ..formats import strict_json
from ..formats.canonical import canonical
from ..formats.errors import FormatError, LedgerError, UsageError, VerificationError
from ..formats.jws import Signer
from ..formats.keys import from_jwk
from .checkpoint import CheckpointSigner, Verifier, verify_checkpoint
from .growth import Growth
from .merkle import TILE_HEIGHT, CompactTree, leaf_hash
from .store import (
    MAX_ENTRY,
    Batch,
    BetRow,
    CheckpointRow,
    DisclosureRow,
    DocumentKind,
    DocumentRow,
    Durability,
    Head,
    NodeRow,
    Stamped,
    Store,
    SubtreeRow,
    WindowRow,
)

LAZY_FLUSH = 0.05
"""Seconds after which what nobody committed is written anyway."""
ERASED_AT_ONCE = 1000
"""Entries that are erased in one transaction; the batches of others wait no longer than for one."""
TILE = 1 << TILE_HEIGHT
REHASHED = 1 << 16
"""How many of the last entries are hashed again when a ledger is opened; those before rest on the signed checkpoint."""


class Ledger:
    """The action log of one origin. Made by `open`; used from one event loop."""

    def __init__(self, store: Store, signer: CheckpointSigner, tree: CompactTree, clock: int) -> None:
        self.origin = signer.verifier.name
        self._store = store
        self._signer = signer
        self._tree = tree
        self._clock = clock
        self._batch = Batch()
        self._waiting: list[asyncio.Future[None]] = []
        self._written: list[asyncio.Future[None]] = []
        self._pending = self._scheduled = self._writing = False
        self._timer: asyncio.TimerHandle | None = None
        self._dead: LedgerError | None = None
        self._closed = False
        self._evident = False
        self.described = ""
        """The digest of the monitor's newest description of itself (`description`); "" while there is none."""
        self.on_added: Callable[[Mapping[str, Any], int], None] = lambda fields, seq: None
        """Called with what `add` was given and its `seq`; the entry is not durable yet. Runs are not told."""
        self.on_bets: Callable[[], None] = lambda: None
        """Called in the event loop when BETs have become durable."""
        self.witnessed: Callable[[], str] = str
        """Gives the line (`witnessed`) that goes along with a BET over the log as it is now; "" while there is none."""
        self._growing: list[Growth] = []
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger")

    @classmethod
    def open(cls, store: Store, origin: str, signer: Signer) -> Ledger:
        """Take up the log where it ended and sign a fresh checkpoint of it.

        Raises UsageError if the store is another log's, LedgerError if it does not agree with its last checkpoint or
        cannot be written.
        """
        checkpoints = CheckpointSigner(origin, signer)
        found = store.meta("origin")
        if found is None:
            store.put_meta("origin", origin)
        elif found != origin:
            raise UsageError(
                f"the ledger is the log of {found}, not of {origin}: give this monitor another ledger path"
            )
        tree, clock = _take_up(store, checkpoints.verifier)
        ledger = cls(store, checkpoints, tree, clock)
        ledger._write(Batch(), tree.size, tree.edge(), clock)
        return ledger

    @property
    def durability(self) -> Durability:
        """What `commit` waits for."""
        return self._store.durability

    @property
    def key_id(self) -> bytes:
        """The id of the key that signs the checkpoints."""
        return self._signer.verifier.key_id()

    @property
    def size(self) -> int:
        """How many entries were added, durable or not yet."""
        return self._tree.size

    def root(self) -> bytes:
        """The Merkle root over `size` entries."""
        return self._tree.root()

    def now(self) -> float:
        """The time as a NumericDate in whole microseconds, later than every one given out before.

        That holds across restarts and clock changes for every value given out before the last durable batch.
        """
        self._clock = max(time.time_ns() // 1000, self._clock + 1)
        return self._clock / 1e6

    def add(self, fields: Mapping[str, Any]) -> Stamped:
        """Give an entry its `seq` and `timestamp` and put it into the log. It is not durable before `commit`.

        Raises FormatError for what has no canonical form or is too large, LedgerError when the ledger is dead; then
        nothing was added.
        """
        self._check_alive()
        clock = max(time.time_ns() // 1000, self._clock + 1)
        seq, timestamp = self._tree.size, clock / 1e6
        data = canonical({**fields, "seq": seq, "timestamp": timestamp})
        if len(data) > MAX_ENTRY:
            raise FormatError(f"the entry has {len(data)} octets, more than {MAX_ENTRY}")
        stamped = Stamped(seq, timestamp, data, leaf_hash(data))
        self._clock = clock
        self._extend([stamped])
        self._soon()
        self.on_added(fields, seq)
        return stamped

    def add_run(self, heads: Iterable[bytes], middle: bytes, tail: bytes) -> list[Stamped]:
        """Put entries into the log of which only `seq` and `timestamp` are missing (see `runs`), 1 µs apart.

        Raises FormatError if one is too large, LedgerError when the ledger is dead; then nothing was added.
        """
        self._check_alive()
        clock = max(time.time_ns() // 1000, self._clock + 1)
        stamped = []
        for seq, head in enumerate(heads, self._tree.size):
            timestamp = clock / 1e6
            written = dumps(timestamp if clock % 1_000_000 else clock // 1_000_000)
            data = b"".join((head, middle, b"%d" % seq, b',"timestamp":', written, tail))
            stamped.append(Stamped(seq, timestamp, data, sha256(b"\x00" + data).digest()))
            clock += 1
        if len(longest := max((one.data for one in stamped), key=len)) > MAX_ENTRY:
            raise FormatError(f"an entry has {len(longest)} octets, more than {MAX_ENTRY}")
        self._extend(stamped)
        self._clock = clock - 1
        self._soon()
        return stamped

    def add_disclosures(self, seq: int, texts: Iterable[str]) -> None:
        """Keep values beside entry `seq`, which holds their digests."""
        self._check_alive()
        self._batch.disclosures += [DisclosureRow(seq, text) for text in texts]
        self._soon()

    def add_bet(self, row: BetRow) -> None:
        """Keep a BET, and the signed checkpoint of the log as it is now, which the BET rests on.

        Raises LedgerError when the ledger is dead (so do the following).
        """
        self._check_alive()
        self._batch.bets.append(row)
        self._batch.roots[self._tree.size] = self._tree.root()
        self._soon()

    def checkpoint(self) -> Growth:
        """Keep the signed checkpoint of the log as it is now, which is not empty, and follow how it grows from here."""
        self._check_alive()
        self._batch.roots[self._tree.size] = self._tree.root()
        self._soon()
        growth = Growth(self._tree.size, self._tree.edge())
        self._growing.append(growth)
        return growth

    def follow(self, growth: Growth) -> None:
        """Follow from here on how the log grows from an older checkpoint. Raises ValueError if it is not up to now."""
        if growth.size != self._tree.size:
            raise ValueError(f"the log has {self._tree.size} entries, this goes as far as {growth.size}")
        self._growing.append(growth)

    def forget(self, growth: Growth) -> None:
        """Follow it no longer."""
        self._growing = [one for one in self._growing if one is not growth]

    def put_checkpoint(self, row: CheckpointRow) -> None:
        """Keep a checkpoint with its cosignatures, instead of the same with fewer."""
        self._check_alive()
        self._batch.checkpoints.append(row)
        self._soon()

    def add_node(self, row: NodeRow) -> None:
        """Keep an ECT node; a jti that is known already stays as it was."""
        self._check_alive()
        self._batch.nodes.append(row)
        self._soon()

    def put_window(self, row: WindowRow) -> None:
        """Remember where the open window of (agent, policy) begins, instead of what was remembered before."""
        self._check_alive()
        self._batch.windows.append(row)
        self._soon()

    def put_document(self, kind: DocumentKind, id: str, document: Mapping[str, Any]) -> None:
        """Keep what is needed besides the log (see `DocumentRow`)."""
        self._check_alive()
        self._batch.documents.append(DocumentRow(kind, id, canonical(document)))
        self._soon()

    def put_meta(self, name: str, value: str) -> None:
        """Set a value of the store itself, together with what is added now."""
        self._check_alive()
        self._batch.meta[name] = value
        self._soon()

    def commit(self) -> asyncio.Future[None]:
        """A future that is done when everything added so far is durable; LedgerError if it never will be."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        if self._dead is not None:
            future.set_exception(LedgerError(str(self._dead)))
        elif self._pending:
            self._waiting.append(future)
            if not self._scheduled and not self._writing:
                # In the next turn of the loop, so that what others add in this one comes along.
                self._scheduled = True
                loop.call_soon(self._cut)
        elif self._writing:
            self._written.append(future)
        else:
            future.set_result(None)
        return future

    def sign_with(self, signer: Signer, former: Signer | None = None) -> None:
        """Sign the checkpoints from the next one on with this key, and with the `former` one if it is given.

        Raises UsageError (see `CheckpointSigner`).
        """
        self._signer = CheckpointSigner(self.origin, signer, former)

    async def erase(self, end: int) -> bool:
        """Erase the entries before `end` for good, between the batches of others; False if copies are left (`scrub`).

        Raises LedgerError; then no more can be written.
        """
        if not 0 <= end < self._tree.size:
            raise ValueError(f"entry {end - 1} is not before the last of {self._tree.size}")
        loop = asyncio.get_running_loop()
        done = -1
        while done < end:
            self._check_alive()
            try:
                done = await loop.run_in_executor(self._thread, self._store.erase, end, ERASED_AT_ONCE)
            except LedgerError as e:
                self._die(e)
                raise
        return await self.scrub()

    async def scrub(self) -> bool:
        """Clear away copies of what was erased; False while a reader of older times is in the way."""
        self._check_alive()
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._store.scrub)

    async def close(self) -> None:
        """Write what is left with a checkpoint over it and give the store back. Raises LedgerError if that fails."""
        if self._closed:
            return
        self._closed = True
        try:
            await self.commit()
        finally:
            await asyncio.to_thread(self._thread.shutdown)
            self._store.close()

    def _check_alive(self) -> None:
        if self._dead is not None:
            raise LedgerError(str(self._dead))
        if self._closed:
            raise LedgerError("the ledger is closed")

    def _extend(self, stamped: list[Stamped]) -> None:
        for seq, _, _, leaf in stamped:
            if not (seq + 1) % TILE:
                self._batch.subtrees += [SubtreeRow(*subtree) for subtree in self._tree.completes(leaf)]
            self._tree.append(leaf)
        for growth in self._growing:
            for one in stamped:
                growth.append(one.leaf)
        self._batch.entries += stamped

    def _soon(self) -> None:
        if not self._pending:
            self._timer = asyncio.get_running_loop().call_later(LAZY_FLUSH, self._cut)
            self._pending = True

    def _cut(self) -> None:
        """Hand the batch to the writer; when that is busy, `_done` comes back here."""
        self._scheduled = False
        if self._writing or not self._pending or self._dead is not None:
            return
        if self._timer is not None:
            self._timer.cancel()
        batch, self._batch = self._batch, Batch()
        self._evident = bool(batch.bets)
        self._written, self._waiting = self._waiting, []
        self._pending, self._writing = False, True
        edge = self._tree.edge()
        loop = asyncio.get_running_loop()
        writing = loop.run_in_executor(self._thread, self._write, batch, self._tree.size, edge, self._clock)
        writing.add_done_callback(self._done)

    def _write(self, batch: Batch, size: int, edge: bytes, clock: int) -> None:
        """In the writer's thread: sign the checkpoint that covers the batch, and those of its BETs; store all."""
        batch.checkpoints += [CheckpointRow(at, self._signer.sign(at, root), 0) for at, root in batch.roots.items()]
        note = self._signer.sign(size, CompactTree(size, edge).root())
        batch.head = Head(size, note, edge, clock)
        self._store.append(batch)

    def _done(self, writing: asyncio.Future[None]) -> None:
        self._writing = False
        error = writing.exception()
        if error is not None:
            self._die(error)
            return
        for future in self._written:
            if not future.done():
                future.set_result(None)
        self._written = []
        if self._evident:
            self.on_bets()
        self._cut()

    def _die(self, error: BaseException) -> None:
        text = str(error) if isinstance(error, LedgerError) else f"the ledger cannot be written: {error!r}"
        text += "; nothing more is recorded until the monitor is started again"
        self._dead = LedgerError(text)
        for future in (*self._written, *self._waiting):
            if not future.done():
                future.set_exception(LedgerError(text))
        self._written, self._waiting = [], []


def _take_up(store: Store, own: Verifier) -> tuple[CompactTree, int]:
    """The tree and the clock at the end of `store`. Raises LedgerError if its checkpoint says something else."""
    head = store.head()
    if head is None:
        if next(store.entries(), None) is not None:
            raise LedgerError("the ledger holds entries but no checkpoint over them")
        return CompactTree(), 0
    try:
        checkpoint = verify_checkpoint(head.checkpoint, own.name, _known_keys(store, own))
        if type(head.clock) is not int:
            raise FormatError(f"its clock stands at {head.clock!r}, expected microseconds")
        tree = _hash_again(store, head)
    except (FormatError, VerificationError, ValueError) as e:
        raise LedgerError(f"the ledger does not agree with its last checkpoint: {e}") from None
    if (checkpoint.size, checkpoint.root) != (tree.size, tree.root()):
        raise LedgerError(
            f"the ledger does not agree with its last checkpoint: that covers {checkpoint.size} entries with the root "
            f"{checkpoint.root.hex()}, the stored {tree.size} entries have {tree.root().hex()}"
        )
    return tree, head.clock


def _known_keys(store: Store, own: Verifier) -> list[Verifier]:
    """This monitor's key and those that signed the log before it."""
    jwks = (strict_json.loads_object(document.data) for document in store.documents("key"))
    return [own, *(Verifier.of(own.name, from_jwk(jwk)) for jwk in jwks if jwk.get("crv") == "Ed25519")]


def _hash_again(store: Store, head: Head) -> CompactTree:
    """The tree from the stored edge, with its last leaves taken from the entries themselves."""
    if head.size and next(store.entries(head.size - 1), None) is None:
        raise FormatError(f"expected entry {head.size - 1}, found the end of the log")
    tail = head.size & -REHASHED
    tree = CompactTree(tail, CompactTree(head.size, head.edge).edge()[: 32 * tail.bit_count()])
    for seq, leaf, data in store.leaves(tail):
        if seq != tree.size:
            raise FormatError(f"expected entry {tree.size}, found entry {seq}")
        tree.append(leaf_hash(data) if data else leaf)
    return tree
