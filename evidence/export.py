"""Evidence files: a log with all that an outsider needs to verify it, as JSON Lines.

The first line is `{"lictor":"evidence/1","origin":…,"checkpoint":<signed note>,"first_seq":0,"count":N}`. Then come, in
this order, `{"key":<JWK>}`, `{"cosigned":<note>}`, `{"binding":<document>}`, `{"ect":<token>}`,
`{"bet":<token>}`, `{"erased":{"leaf":<base64url leaf hash>,"seq":N}}` of each entry that was erased, and the entries
`{"entry":<canonical bytes verbatim>,"leaf":<base64url leaf hash>}`, each any number of times. The last line is
`{"end":{"count":N,"checkpoint":<signed note>}}`. The leaf hash proves nothing by itself; it lets a verifier say which
entry was altered. Every line ends with a line feed, so a file that was cut off shows it.
"""

from __future__ import annotations

import os
import re
import tempfile
from binascii import a2b_base64
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

from ..formats import base64url, strict_json
from ..formats.canonical import canonical
from ..formats.errors import FormatError, LedgerError, UsageError
from .sqlite_store import SqliteReader

FORMAT = "evidence/1"
MAX_LINE = 40 << 20
"""Octets of the longest line that is read: a binding has at most 32 MiB."""
BLOCK = 512
"""Rows that are read at once, or fewer if they are long."""
BLOCK_OCTETS = 1 << 20
_ENTRY = re.compile(rb'\{"entry":(\{.*\}),"leaf":"([A-Za-z0-9_-]{43})"\}\n', re.ASCII)
_LAST_OF_43 = b"AEIMQUYcgkosw048"
"""43 characters hold 32 octets and two bits more, which are zero in the one spelling."""
_STANDARD = bytes.maketrans(b"-_", b"+/")
_ERASED = re.compile(rb'\{"erased":\{"leaf":"([A-Za-z0-9_-]{43})","seq":(0|[1-9][0-9]{0,15})\}\}\n', re.ASCII)
_ORDER = ("key", "cosigned", "binding", "ect", "bet", "erased", "entry", "end")


class Truncated(FormatError):
    """The file ends before its last line."""


@dataclass(frozen=True, slots=True)
class Header:
    """What the file says it holds: entries `first_seq` up to `count` of the log `origin`, under a signed note."""

    origin: str
    checkpoint: str
    first_seq: int
    count: int


@dataclass(frozen=True, slots=True)
class Document:
    """A key (JWK) or a binding."""

    kind: Literal["key", "binding"]
    value: dict[str, Any]


@dataclass(frozen=True, slots=True)
class CosignedLine:
    """An earlier checkpoint, or the last, with signatures of witnesses; nothing of it verified."""

    note: str


@dataclass(frozen=True, slots=True)
class TokenLine:
    """A token in compact form, nothing of it verified."""

    kind: Literal["ect", "bet"]
    token: str


class EntryLine(NamedTuple):
    """The bytes of an entry, which may be anything, and the leaf hash that the file gives for them."""

    data: bytes
    leaf: bytes


@dataclass(frozen=True, slots=True)
class ErasedLine:
    """An entry of which only the leaf hash is left."""

    seq: int
    leaf: bytes


@dataclass(frozen=True, slots=True)
class End:
    """The last line; it repeats what the first one says."""

    count: int
    checkpoint: str


Record = Header | Document | CosignedLine | TokenLine | ErasedLine | EntryLine | End


@dataclass(frozen=True, slots=True)
class Cut:
    """What of a ledger goes into an evidence file: what was there at one moment, by the last number of each kind."""

    header: Header
    cosigned: tuple[str, ...]
    documents: int
    nodes: int
    bets: int
    erased: int


def cut(reader: SqliteReader) -> Cut:
    """The ledger as it is now. Raises LedgerError if nothing was written to it yet."""
    with reader.snapshot():
        head, origin = reader.head(), reader.meta("origin")
        if head is None or origin is None:
            raise LedgerError(f"the ledger {reader.path} has no checkpoint yet")
        header = Header(origin, head.checkpoint, 0, head.size)
        cosigned = tuple(row.note for row in reader.cosigned())
        return Cut(header, cosigned, *reader.last_numbers(), reader.erased())


def export_lines(reader: SqliteReader) -> Generator[bytes]:
    """The lines of an evidence file of the whole ledger, all of one moment. Raises LedgerError."""
    for block in export_blocks(reader, cut(reader)):
        yield from block


def export_blocks(reader: SqliteReader, of: Cut) -> Generator[list[bytes]]:
    """The same, a few lines at a time: between them nothing is held, so whoever takes his time is in nobody's way.

    What is there stays there, but for what is erased meanwhile: then it ends with LedgerError.
    """
    header = of.header
    start = {"origin": header.origin, "checkpoint": header.checkpoint, "first_seq": 0, "count": header.count}
    yield [canonical({"lictor": FORMAT, **start}) + b"\n"]
    yield from _documents(reader, "key", of.documents)
    yield [canonical({"cosigned": note}) + b"\n" for note in of.cosigned]
    yield from _documents(reader, "binding", of.documents)
    yield from _tokens("ect", reader.nodes_after, of.nodes)
    yield from _tokens("bet", reader.bets_after, of.bets)
    yield from _entries(reader, of)
    yield [canonical({"end": {"count": header.count, "checkpoint": header.checkpoint}}) + b"\n"]


def _documents(reader: SqliteReader, kind: Literal["key", "binding"], last: int) -> Iterator[list[bytes]]:
    number = 0
    while (found := reader.document_after(kind, number)) is not None and found[0] <= last:
        number, data = found
        yield [b'{"%s":%s}\n' % (kind.encode(), data)]


def _tokens(kind: str, after: Callable[[int, int], list[tuple[int, str]]], last: int) -> Iterator[list[bytes]]:
    number = 0
    while number < last and (found := after(number, BLOCK)):
        yield [canonical({kind: token}) + b"\n" for one, token in found if one <= last]
        number = found[-1][0]


def _entries(reader: SqliteReader, of: Cut) -> Iterator[list[bytes]]:
    begin, size = 0, of.header.count
    while begin < size:
        end, lines, octets = min(begin + BLOCK, size), [], 0
        with reader.snapshot():
            if reader.erased() > of.erased:
                raise LedgerError("entries were erased while they were exported; export the log again")
            for seq, leaf, data in reader.leaves(begin, end):
                lines.append(_entry(seq, base64url.encode(leaf).encode(), data))
                octets += len(data)
                if octets >= BLOCK_OCTETS:
                    end = seq + 1
                    break
        yield lines
        begin = end


def _entry(seq: int, leaf: bytes, data: bytes) -> bytes:
    if data:
        return b'{"entry":%s,"leaf":"%s"}\n' % (data, leaf)
    return b'{"erased":{"leaf":"%s","seq":%d}}\n' % (leaf, seq)


def write_export(reader: SqliteReader, path: Path) -> Header:
    """Write the evidence file whole or not at all, readable by the owner only; what its first line says.

    Raises UsageError if it cannot be written, LedgerError if the ledger cannot be read.
    """
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as e:
        raise UsageError(f"{path} cannot be written: {e.strerror}") from None
    try:
        with open(descriptor, "wb") as f, closing(export_lines(reader)) as lines:
            first = next(lines)
            f.write(first)
            f.writelines(lines)
            f.flush()
            os.fsync(f.fileno())
        os.replace(name, path)
    except BaseException as e:
        with suppress(OSError):
            os.unlink(name)
        if isinstance(e, OSError):
            raise UsageError(f"{path} cannot be written: {e.strerror}") from None
        raise
    return read_header(first)


@contextmanager
def open_lines(path: Path) -> Iterator[Iterator[bytes]]:
    """The lines of a file, none longer than one octet beyond MAX_LINE. Raises UsageError."""
    try:
        f = open(path, "rb")  # noqa: SIM115 - closed below
    except OSError as e:
        raise UsageError(f"{path} cannot be read: {e.strerror}") from None
    with f:
        yield _lines(f)


def _lines(f: BinaryIO) -> Iterator[bytes]:
    while line := f.readline(MAX_LINE + 1):
        yield line


def read_records(lines: Iterable[bytes]) -> Iterator[tuple[int, Record]]:
    """(line number from 1, record) of an evidence file, a line at a time.

    Raises FormatError for what an evidence file cannot hold where it stands, Truncated when it ends too early.
    """
    number = rank = 0
    ended = False
    entries = _ORDER.index("entry")
    for number, line in enumerate(lines, 1):
        if not line.endswith(b"\n") and len(line) <= MAX_LINE:
            raise Truncated(f"the file ends within line {number}")
        if ended:
            raise FormatError(f"line {number}: something stands after the end line")
        try:
            record = _record(line) if number > 1 else read_header(line)
            if type(record) is EntryLine and rank == entries:
                yield number, record
                continue
            if number > 1:
                found = _rank(record)
                if found < rank:
                    raise FormatError(f"a line of {_ORDER[found]!r} stands after one of {_ORDER[rank]!r}")
                rank = found
        except FormatError as e:
            raise FormatError(f"line {number}: {e}") from None
        ended = isinstance(record, End)
        yield number, record
    if not ended:
        raise Truncated(f"the file ends after line {number}, without its end line" if number else "the file is empty")


def _rank(record: Record) -> int:
    if isinstance(record, (Document, TokenLine)):
        return _ORDER.index(record.kind)
    if isinstance(record, CosignedLine):
        return _ORDER.index("cosigned")
    if isinstance(record, ErasedLine):
        return _ORDER.index("erased")
    return _ORDER.index("end" if isinstance(record, End) else "entry")


def _record(line: bytes) -> Record:
    found = _ENTRY.fullmatch(line)
    if found is not None:
        data, leaf = found.groups()
        if leaf[42] not in _LAST_OF_43:
            raise FormatError("not base64url in its one spelling (stray bits)")
        return EntryLine(data, a2b_base64(leaf.translate(_STANDARD) + b"="))
    found = _ERASED.fullmatch(line)
    if found is not None:
        return ErasedLine(_count(int(found[2])), base64url.decode(found[1].decode("ascii")))
    if len(line) > MAX_LINE:
        raise FormatError(f"the line has more than {MAX_LINE} octets")
    value = strict_json.loads_object(line)
    kind, member = next(iter(value.items()), ("", None))
    if len(value) != 1 or kind not in _ORDER or kind in ("entry", "erased"):
        raise FormatError(f"not one of {', '.join(_ORDER)}: {line[:60]!r}")
    if kind == "cosigned" and isinstance(member, str):
        return CosignedLine(member)
    if kind in ("ect", "bet") and isinstance(member, str):
        return TokenLine("ect" if kind == "ect" else "bet", member)
    if kind in ("key", "binding") and isinstance(member, dict):
        return Document("key" if kind == "key" else "binding", member)
    if kind == "end" and isinstance(member, dict) and member.keys() == {"count", "checkpoint"}:
        return End(_count(member["count"]), _text(member["checkpoint"]))
    raise FormatError(f"the value of {kind!r} is not what it must be")


def read_header(line: bytes) -> Header:
    """The first line of an evidence file. Raises FormatError."""
    if len(line) > MAX_LINE:
        raise FormatError("not an evidence file: the first line is too long")
    value = strict_json.loads_object(line)
    if value.get("lictor") != FORMAT:
        raise FormatError(f"not an evidence file: 'lictor' is {value.get('lictor')!r}, expected {FORMAT!r}")
    if value.keys() != {"lictor", "origin", "checkpoint", "first_seq", "count"}:
        raise FormatError("the first line has other members than lictor, origin, checkpoint, first_seq, count")
    if _count(value["first_seq"]) != 0:
        raise FormatError(f"the file begins at entry {value['first_seq']}, expected 0")
    return Header(_text(value["origin"]), _text(value["checkpoint"]), 0, _count(value["count"]))


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**53:
        raise FormatError(f"{value!r} is not a count")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise FormatError(f"{value!r} is not text")
    return value
