import random

import pytest

from lictor.formats.errors import FormatError
from lictor.formats.sse import Event, Splitter

LIMIT = 100


def events(*chunks: bytes) -> list[Event]:
    splitter = Splitter(LIMIT)
    found = [event for chunk in chunks for event in splitter.feed(chunk)]
    rest = splitter.finish()
    assert b"".join(e.raw for e in found) + (rest.raw if rest else b"") == b"".join(chunks)
    return found


def datas(*chunks: bytes) -> list[bytes]:
    return [event.data for event in events(*chunks) if event.data is not None]


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"data: a\n\ndata: b\n\n", [b"a", b"b"]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"]),
        (b"data: a\r\rdata: b\r\r", [b"a", b"b"]),
        (b"data: a\r\n\ndata: b\n\r\n", [b"a", b"b"]),
        (b"data: a\r\ndata: b\r\n\r\n", [b"a\nb"]),
        (b"data:a\ndata:  b\ndata\n\n", [b"a\n b\n"]),
        (b"\n\n\r\ndata: a\n\n\n\n\ndata: b\n\n\n", [b"a", b"b"]),
        (b"\xef\xbb\xbfdata: a\n\n\xef\xbb\xbfdata: b\n\n", [b"a"]),
        (b": comment\n\nData: a\n\n data: b\n\ndatum: c\n\n", []),
        (b"data: a:b\n\n", [b"a:b"]),
        (b"data: a\x0b\x0b\xe2\x80\xa8\xe2\x80\xa8data: b\n\n", [b"a\x0b\x0b\xe2\x80\xa8\xe2\x80\xa8data: b"]),
        (b"data: a\n", []),
        (b"", []),
    ],
)
def test_a_stream_is_cut_into_events_however_it_comes(stream: bytes, expected: list[bytes]) -> None:
    assert datas(stream) == expected
    assert datas(*(stream[i : i + 1] for i in range(len(stream)))) == expected
    for cut in range(len(stream)):
        assert datas(stream[:cut], stream[cut:]) == expected


def test_the_fields() -> None:
    (event,) = events(b"event: endpoint\nid: 5\nretry: 10\nid: 6\ndata: x\n\n")
    assert (event.type, event.id, event.data) == (b"endpoint", b"6", b"x")
    (event,) = events(b": only a comment\n\n")
    assert (event.type, event.id, event.data) == (b"message", None, None)


def test_an_event_is_given_as_soon_as_it_is_complete() -> None:
    splitter = Splitter(LIMIT)
    assert splitter.feed(b"data: a\r") == []
    assert [e.data for e in splitter.feed(b"\r")] == [b"a"]
    assert [e.data for e in splitter.feed(b"\ndata: b\n\n")] == [None, b"b"]


def test_an_event_has_its_whole_end_where_that_comes_in_pieces() -> None:
    splitter = Splitter(LIMIT)
    stream = b"data: a\r\n\r\n"
    assert [[e.raw for e in splitter.feed(stream[i : i + 1])] for i in range(len(stream))] == [[]] * 10 + [[stream]]


def test_what_stands_at_the_end_without_an_empty_line_is_not_lost() -> None:
    splitter = Splitter(LIMIT)
    assert splitter.feed(b"data: a\n\ndata: b\n")[0].data == b"a"
    rest = splitter.finish()
    assert rest is not None
    assert (rest.raw, rest.data) == (b"data: b\n", b"b")
    assert Splitter(LIMIT).finish() is None


@pytest.mark.parametrize("chunks", [[b"x" * 101], [b"x" * 100, b"x"], [b"data: " + b"x" * 99 + b"\n\n"]])
def test_an_event_beyond_the_limit_is_refused(chunks: list[bytes]) -> None:
    with pytest.raises(FormatError, match="octets or more, expected at most 100"):
        events(*chunks)


def test_an_event_without_end_is_refused_before_it_ends() -> None:
    splitter = Splitter(LIMIT)
    splitter.feed(b"x" * LIMIT)
    with pytest.raises(FormatError):
        splitter.feed(b"x")


def test_many_events_may_be_larger_than_one() -> None:
    assert len(datas(b"data: a\n\n" * 1000)) == 1000


def test_random_streams_in_random_pieces_are_read_as_in_one() -> None:
    rng = random.Random(7)
    for _ in range(300):
        stream = bytes(rng.choices(b"\r\n:a ", k=40)) + b"data: z\n\n"
        whole = [event.data for event in events(stream) if event.data is not None]
        pieces, rest = [], stream
        while rest:
            size = rng.randint(1, 9)
            pieces.append(rest[:size])
            rest = rest[size:]
        assert datas(*pieces) == whole
