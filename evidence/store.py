"""What a ledger keeps, and the seam to whatever keeps it.

A batch is written whole or not at all: entries, BETs, nodes, windows, documents and the head that covers them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

import orjson

from ..formats.errors import LedgerError

DocumentKind = Literal["key", "binding", "description"]
Durability = Literal["commit", "os"]
"""When a batch counts as written: once it is on the disk, or once the operating system has it."""
MAX_ENTRY = 1 << 20
"""Octets of the largest entry that a log takes."""


class Stamped(NamedTuple):
    """An entry as the log has it: `data` are its canonical bytes, `leaf` is its RFC 9162 leaf hash."""

    seq: int
    timestamp: float
    data: bytes
    leaf: bytes


@dataclass(frozen=True, slots=True)
class BetRow:
    """A BET as issued. The window is half-open: `start` <= t < `end`, NumericDates; `first_seq` as the BET says it."""

    jti: str
    agent_id: str
    policy_id: str
    first_seq: int
    count: int
    start: float
    end: float
    token: str


@dataclass(frozen=True, slots=True)
class NodeRow:
    """An ECT node of the workflow `wid`: minted by this monitor or received by it."""

    jti: str
    wid: str
    agent_id: str
    issuer: str
    iat: float
    parents: tuple[str, ...]
    token: str
    origin: Literal["minted", "received"]


@dataclass(frozen=True, slots=True)
class WindowRow:
    """Where the open window of (agent, policy) began; `prev_bet` is the jti of the BET that closed the one before."""

    agent_id: str
    policy_id: str
    start: float
    first_seq: int
    prev_bet: str | None


@dataclass(frozen=True, slots=True)
class DocumentRow:
    """What is kept besides the log: an evidence key (JWK, `id` = kid), a binding (`id` = its digest), a description.

    Of a description of the monitor (`description`) `id` is its digest, and the document has its `token`.
    """

    kind: DocumentKind
    id: str
    data: bytes


@dataclass(frozen=True, slots=True)
class DisclosureRow:
    """A value that is kept beside entry `seq`, which holds its digest: the text of `salted.disclosure`."""

    seq: int
    text: str


@dataclass(frozen=True, slots=True)
class SubtreeRow:
    """The root of 256**level leaves, those from index * 256**level on; level 1 at least."""

    level: int
    index: int
    root: bytes


@dataclass(frozen=True, slots=True)
class CheckpointRow:
    """A signed checkpoint worth keeping: a BET rests on it, or witnesses signed it (then `cosignatures` of them)."""

    size: int
    note: str
    cosignatures: int


@dataclass(frozen=True, slots=True)
class Head:
    """The end of the log: the signed checkpoint of `size` entries, the tree's right edge, the clock in microseconds."""

    size: int
    checkpoint: str
    edge: bytes
    clock: int


@dataclass(slots=True)
class Batch:
    """What goes into one transaction. When it is cut `head` is set and `roots` (by size) are signed."""

    entries: list[Stamped] = field(default_factory=list)
    bets: list[BetRow] = field(default_factory=list)
    nodes: list[NodeRow] = field(default_factory=list)
    windows: list[WindowRow] = field(default_factory=list)
    documents: list[DocumentRow] = field(default_factory=list)
    head: Head | None = None
    subtrees: list[SubtreeRow] = field(default_factory=list)
    checkpoints: list[CheckpointRow] = field(default_factory=list)
    roots: dict[int, bytes] = field(default_factory=dict)
    disclosures: list[DisclosureRow] = field(default_factory=list)
    meta: dict[str, str] = field(default_factory=dict)


ALTERED = "it was altered; go on with a copy that was not, or give this monitor another ledger path"


class Meta(Protocol):
    """Reads what a store keeps of itself."""

    def meta(self, name: str) -> str | None:
        """A value of the store itself, or None."""


def read_meta[T](stored: Meta, name: str, default: T) -> T:
    """What is kept under a name, as JSON, or the default. Raises LedgerError if it is of another type than that."""
    text = stored.meta(name)
    if text is None:
        return default
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, type(default)):
        what = f"the ledger keeps {text[:80]!r} as {name!r}, expected JSON of the type {type(default).__name__}"
        raise LedgerError(f"{what}: {ALTERED}")
    return found


class Reader(Protocol):
    """Reads what is durable. Iterators come in log order (entries by seq, the others as they were added)."""

    def head(self) -> Head | None:
        """The last head, None for a store that was never written."""

    def last_checkpoint(self) -> str | None:
        """The signed note of the last head."""

    def erased(self) -> int:
        """How many entries at the beginning of the log were erased, so that only their leaf hashes are left."""

    def entries(self, first: int = 0, end: int | None = None) -> Iterator[tuple[int, bytes]]:
        """(seq, canonical bytes) for first <= seq < end, without those that were erased."""

    def leaves(self, first: int = 0, end: int | None = None) -> Iterator[tuple[int, bytes, bytes]]:
        """(seq, leaf hash, canonical bytes) for first <= seq < end; no bytes for what was erased."""

    def bets(self, agent_id: str | None = None, policy_id: str | None = None) -> Iterator[BetRow]:
        """All BETs, or those of one agent and/or policy."""

    def nodes(self, wid: str | None = None) -> Iterator[NodeRow]:
        """All ECT nodes, or those of one workflow."""

    def node(self, wid: str, jti: str) -> NodeRow | None:
        """The known node of that workflow with this id, else one of no workflow (wid ""); by an index."""

    def node_of(self, jti: str, issuers: tuple[str, str]) -> NodeRow | None:
        """A node of any workflow with this id that one of these issued; by an index."""

    def known(self, wid: str, most: int) -> int:
        """How many nodes of that workflow or of none are known, counted up to `most`."""

    def windows(self, agent_id: str | None = None) -> Iterator[WindowRow]:
        """The windows of all agents, or of one."""

    def documents(self, kind: DocumentKind) -> Iterator[DocumentRow]:
        """The documents of one kind."""

    def disclosures(self, seq: int) -> list[str]:
        """The values that are kept beside an entry, in the order in which they were added."""

    def hashes(self, level: int, first: int, count: int) -> list[bytes]:
        """`count` leaf hashes (level 0) or roots of full tiles (`SubtreeRow`); LedgerError if one is not there."""

    def checkpoint(self, size: int) -> CheckpointRow | None:
        """The checkpoint of this size that was kept."""

    def cosigned(self) -> Iterator[CheckpointRow]:
        """Checkpoints that witnesses signed, newest first, each with more cosignatures than the newer ones."""

    def meta(self, name: str) -> str | None:
        """A value of the store itself (its origin)."""

    def close(self) -> None:
        """Give back files and locks."""


class Store(Reader, Protocol):
    """A reader that also writes. Only one can be open on a log (UsageError for the second)."""

    @property
    def durability(self) -> Durability:
        """What `append` waits for."""

    def append(self, batch: Batch) -> None:
        """Write all of it durably or raise LedgerError; a failed batch leaves no trace."""

    def put_meta(self, name: str, value: str) -> None:
        """Set a value of the store itself. Raises LedgerError."""

    def erase(self, end: int, limit: int) -> int:
        """Overwrite entries before `end` and what is kept beside them, at most `limit`; how many are erased now.

        The log must have more than `end` entries. Raises LedgerError.
        """

    def scrub(self) -> bool:
        """Leave no copy of what was erased in the files; False if a reader is in the way. Raises LedgerError."""
