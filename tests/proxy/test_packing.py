"""Runs as frames: what is alike is packed together, up to a bound, and comes out as it went in."""

from __future__ import annotations

import pytest

from lictor.formats.errors import FormatError
from lictor.proxy.packing import MAX_OCTETS, MAX_RUN, Packing, unpack


def test_there_and_back() -> None:
    packing = Packing(7, b"common", b"{1}")
    assert packing.take(8, b"common", b"{2}")
    assert unpack(packing.frame()) == (7, b"common", b"{1}\n{2}")


@pytest.mark.parametrize(
    ("what", "number", "common"), [("not alike", 8, b"other"), ("not the next", 9, b"common"), ("again", 7, b"common")]
)
def test_what_is_not_of_the_run(what: str, number: int, common: bytes) -> None:
    packing = Packing(7, b"common", b"{1}")
    assert not packing.take(number, common, b"{2}")
    assert unpack(packing.frame()).heads == b"{1}"


def test_bounds() -> None:
    packing = Packing(0, b"", b"{}")
    taken = [packing.take(number, b"", b"{}") for number in range(1, 2 * MAX_RUN)]
    assert sum(taken) == MAX_RUN - 1
    assert not Packing(0, b"", b"x" * MAX_OCTETS).take(1, b"", b"{}")
    assert not Packing(0, b"", b"{}").take(1, b"", b"x" * MAX_OCTETS)


TOO_MANY = Packing(0, b"", b"\n" * MAX_RUN).frame()


@pytest.mark.parametrize("frame", [b"", b"A", b"A" + bytes(11), b"B" + bytes(20), TOO_MANY])
def test_what_is_no_run(frame: bytes) -> None:
    with pytest.raises(FormatError, match="run"):
        unpack(frame)
