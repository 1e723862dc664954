"""One HTTP/2 connection without a socket: what it lets in, and when its patience ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from lictor.engine import http2_connection
from lictor.engine.http2_connection import GoingAway, Http2Connection

HEAD = [(b":method", b"POST"), (b":scheme", b"https"), (b":authority", b"a.example"), (b":path", b"/")]


class Pair:
    """Our end, and a peer that is hyper-h2 as it is."""

    def __init__(self, client_side: bool = False) -> None:
        def config(client: bool) -> h2.config.H2Configuration:
            return h2.config.H2Configuration(
                client_side=client,
                header_encoding=False,
                validate_inbound_headers=False,
                validate_outbound_headers=False,
            )

        self.ours = Http2Connection(config(client_side))
        self.peer = h2.connection.H2Connection(config(not client_side))
        self.ours.initiate_connection()
        self.peer.initiate_connection()
        self.peer.receive_data(self.ours.data_to_send())
        self.tell()

    def tell(self, *frames: Frame, raw: bytes = b"") -> list[Any]:
        return self.ours.receive_data(self.peer.data_to_send() + b"".join(f.serialize() for f in frames) + raw)

    def open(self, *fields: tuple[bytes, bytes]) -> list[Any]:
        self.peer.send_headers(self.peer.get_next_available_stream_id(), [*HEAD, *fields])
        return self.tell()

    def said(self) -> list[Any]:
        """What our end has to say, as the peer reads it."""
        return self.peer.receive_data(self.ours.data_to_send())


def goaway(pair: Pair) -> ErrorCodes:
    (event,) = (e for e in pair.said() if isinstance(e, h2.events.ConnectionTerminated))
    return ErrorCodes(event.error_code)


def test_windows_and_limits_are_what_the_peer_is_told() -> None:
    pair = Pair()
    remote = pair.peer.remote_settings
    assert remote.initial_window_size == http2_connection.STREAM_WINDOW
    assert remote.max_concurrent_streams == http2_connection.MAX_STREAMS
    assert remote.max_frame_size == http2_connection.MAX_FRAME
    assert pair.peer.outbound_flow_control_window == http2_connection.CONNECTION_WINDOW
    assert http2_connection.STREAM_WINDOW < http2_connection.CONNECTION_WINDOW <= 1 << 20, (
        "this is what a peer can fill"
    )
    assert Pair(client_side=True).peer.remote_settings[SettingCodes.ENABLE_PUSH] == 0


def test_what_is_not_acknowledged_lets_no_more_in() -> None:
    pair = Pair()
    pair.open()
    while (size := min(pair.peer.local_flow_control_window(1), 16384)) > 0:
        pair.peer.send_data(1, bytes(size))
    events = pair.tell()
    assert sum(len(e.data) for e in events) == http2_connection.STREAM_WINDOW
    assert not any(isinstance(e, h2.events.WindowUpdated) for e in pair.said())
    pair.ours.acknowledge_received_data(http2_connection.STREAM_WINDOW, 1)
    pair.said()
    assert pair.peer.local_flow_control_window(1) == http2_connection.STREAM_WINDOW
    (*_, error) = pair.tell(*[DataFrame(1, bytes(16384)) for _ in range(100)])
    assert isinstance(error, h2.exceptions.FlowControlError)


FLOODS: dict[str, Callable[[], Frame]] = {
    "ping": lambda: PingFrame(0, b"12345678"),
    "settings": lambda: SettingsFrame(0, settings={4: 65_535}),
    "priority": lambda: PriorityFrame(3),
    "window of the connection": lambda: WindowUpdateFrame(0, 1),
    "window of a stream": lambda: WindowUpdateFrame(1, 1),
    "empty data": lambda: DataFrame(1, b""),
    "reset of what is not there": lambda: RstStreamFrame(1),
}


@pytest.mark.parametrize("name", FLOODS)
def test_frames_that_carry_nothing_end_the_connection(name: str) -> None:
    pair = Pair()
    pair.open()
    fits = http2_connection.PATIENCE / (http2_connection.RESET_WEIGHT if "reset" in name else 1)
    frame = FLOODS[name]()
    few = pair.tell(*[frame] * int(fits * 0.9))
    assert not any(isinstance(e, h2.exceptions.ProtocolError) for e in few)
    assert isinstance(pair.tell(*[frame] * int(fits))[-1], h2.exceptions.DenialOfServiceError)
    assert pair.ours.reading_head is None
    assert goaway(pair) is ErrorCodes.ENHANCE_YOUR_CALM


def test_time_brings_patience_back(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(http2_connection.time, "monotonic", lambda: now[0])
    pair = Pair()
    for _ in range(10):
        events = pair.tell(*[PingFrame(0, b"12345678")] * int(http2_connection.PATIENCE * 0.9))
        assert not any(isinstance(e, h2.exceptions.ProtocolError) for e in events)
        now[0] += http2_connection.PATIENCE / http2_connection.PATIENCE_PER_S


def test_a_download_pays_for_the_windows_that_it_needs() -> None:
    """Go's client opens both windows for each 4 kB that it has read."""
    pair = Pair()
    pair.open()
    pair.ours.send_headers(1, [(b":status", b"200")])
    for _ in range(2 * int(http2_connection.PATIENCE)):
        pair.ours.send_data(1, bytes(4096))
        events = pair.tell(WindowUpdateFrame(0, 4096), WindowUpdateFrame(1, 4096))
        assert not any(isinstance(e, h2.exceptions.ProtocolError) for e in events)
        pair.ours.data_to_send()


def test_nothing_can_be_paid_in_advance() -> None:
    pair = Pair()
    pair.open()
    pair.tell(DataFrame(1, bytes(60_000)))
    events = pair.tell(*[PingFrame(0, b"12345678")] * int(http2_connection.PATIENCE * 1.1))
    assert isinstance(events[-1], h2.exceptions.DenialOfServiceError)


def test_what_came_before_an_error_still_counts() -> None:
    pair = Pair()
    pair.peer.send_headers(1, HEAD)
    events = pair.tell(raw=b"\xff" * 20)
    assert [type(e) for e in events] == [h2.events.RequestReceived, h2.exceptions.FrameTooLargeError]


def test_a_header_block_has_a_bound_before_it_is_decoded() -> None:
    pair = Pair()
    parts = [ContinuationFrame(1, bytes(16_000)) for _ in range(20)]
    events = pair.tell(HeadersFrame(1, b""), *parts)
    assert isinstance(events[-1], h2.exceptions.DenialOfServiceError)
    assert pair.ours.reading_head == 1


def test_a_header_list_has_a_bound() -> None:
    pair = Pair()
    block = b"\x40\x01x" + b"\x7f\xa1\x1e" + b"v" * 4000 + b"\xbe" * 1000
    events = pair.tell(HeadersFrame(1, block, flags=["END_HEADERS"]))
    assert isinstance(events[-1], h2.exceptions.DenialOfServiceError)
    assert pair.ours.reading_head == 1


def test_a_frame_that_is_too_large_is_refused_at_its_first_bytes() -> None:
    events = Pair().tell(raw=DataFrame(1, bytes(http2_connection.MAX_FRAME + 1)).serialize()[:9])
    assert isinstance(events[-1], h2.exceptions.FrameTooLargeError)


def test_a_peer_does_not_make_our_encoder_remember_without_end() -> None:
    pair = Pair()
    pair.peer.update_settings({SettingCodes.HEADER_TABLE_SIZE: 2**32 - 1})
    pair.tell()
    pair.said()
    assert pair.ours.encoder.header_table_size == http2_connection.MAX_ENCODER_TABLE
    pair.open()
    pair.ours.send_headers(1, [(b":status", b"200"), (b"x-a", b"b")])
    assert any(isinstance(e, h2.events.ResponseReceived) for e in pair.said())


@pytest.mark.parametrize("sent", [b"1234", b"123456"])
def test_a_body_of_another_length_ends_its_stream_and_no_other(sent: bytes) -> None:
    pair = Pair()
    pair.open((b"content-length", b"5"))
    pair.open()
    pair.peer.send_data(1, sent, end_stream=True)
    pair.peer.send_data(3, b"x", end_stream=True)
    reset, data, ended = pair.tell()
    assert isinstance(reset, h2.events.StreamReset)
    assert (reset.stream_id, reset.remote_reset) == (1, False)
    assert (data.data, ended.stream_id) == (b"x", 3)


@pytest.mark.parametrize(("code", "kind"), [(0, GoingAway), (1, h2.events.ConnectionTerminated)])
def test_going_away_without_an_error_ends_nothing(code: int, kind: type) -> None:
    pair = Pair()
    pair.open()
    (event,) = pair.tell(GoAwayFrame(0, last_stream_id=1, error_code=code))
    assert isinstance(event, kind)
    pair.peer.send_data(1, b"x")
    assert any(isinstance(e, h2.events.DataReceived) for e in pair.tell()) is (code == 0)


def test_what_waits_for_a_window_is_forgotten_with_its_stream() -> None:
    pair = Pair()
    pair.open()
    pair.ours.send_headers(1, [(b":status", b"200")])
    pair.ours.send_data(1, bytes(100_000))
    pair.ours.send_trailers(1, [(b"x-a", b"b")])
    assert pair.ours.stream_buffers
    assert pair.ours.stream_trailers
    pair.said()
    pair.peer.reset_stream(1)
    pair.tell()
    assert not pair.ours.stream_buffers
    assert not pair.ours.stream_trailers
