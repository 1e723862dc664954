"""hyper-h2's connection, with windows that bound what a peer may send ahead, and with an end to its patience.

Replaces mitmproxy's `BufferedH2Connection` (12.2.3), which opens windows of 2 GB, in our HTTP/2 layers. What differs
besides: a flood of frames that carry nothing ends the connection, a header block has a bound before it is decoded, a
body of another length than announced ends its stream only, and GOAWAY lets what is under way end.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.frame_buffer
import h2.settings
from hyperframe.exceptions import InvalidPaddingError
from hyperframe.frame import DataFrame, Frame, GoAwayFrame, HeadersFrame, RstStreamFrame
from mitmproxy.proxy.layers.http._http_h2 import BufferedH2Connection

STREAM_WINDOW = 256 * 1024
"""Bytes of one message that may be on the way before they have been passed on."""
CONNECTION_WINDOW = 1024 * 1024
"""The same for all streams of a connection together."""
MAX_FRAME = 64 * 1024
MAX_STREAMS = 100
MAX_HEADER_BLOCK = 128 * 1024
"""Bytes of a header block as it is sent."""
MAX_HEADER_LIST = 256 * 1024
"""Bytes of a header block decoded, beyond which not even its request is refused by itself."""
MAX_ENCODER_TABLE = 64 * 1024

# A peer's frames that carry nothing of a message weigh 1, a stream that it takes back 20. What it sends and gets
# pays for them, and so does time; beyond the limit the connection ends (rapid reset, PING and SETTINGS floods).
PATIENCE = 4000.0
PATIENCE_PER_S = 200.0
RESET_WEIGHT = 20.0
BYTES_PER_FRAME = 512

# What is read at once. hyper-h2 copies what is left of its buffer for each frame.
_SLICE = 16 * 1024
_CLOSED_STREAMS = 4096
_FRAME_HEADER = 9
_PREFACE = 24


@dataclass(frozen=True, slots=True)
class GoingAway(h2.events.Event):
    """The peer takes no new streams; those up to `last_stream_id` go on."""

    last_stream_id: int


class _FrameBuffer(h2.frame_buffer.FrameBuffer):
    def __next__(self) -> Frame:
        if len(self._data) >= _FRAME_HEADER:  # hyper-h2 looks only when all of the frame is there
            self._validate_frame_length(int.from_bytes(self._data[:3]))
        return super().__next__()

    def _update_header_buffer(self, f: Frame | None) -> Frame | None:
        found = super()._update_header_buffer(f)
        size = sum(len(part.data) for part in self._headers_buffer)
        if size > MAX_HEADER_BLOCK:
            raise h2.exceptions.DenialOfServiceError(f"a header block has more than {MAX_HEADER_BLOCK} bytes")
        return found


class Http2Connection(BufferedH2Connection):
    """What our HTTP/2 layers have in place of mitmproxy's `BufferedH2Connection`."""

    MAX_CLOSED_STREAMS = _CLOSED_STREAMS

    def __init__(self, config: h2.config.H2Configuration) -> None:
        super().__init__(config)
        settings = self.local_settings
        settings.initial_window_size = STREAM_WINDOW
        settings.max_frame_size = self.max_inbound_frame_size = MAX_FRAME
        settings.max_concurrent_streams = MAX_STREAMS
        if config.client_side:
            settings.enable_push = 0
        settings.acknowledge()  # or hyper-h2 would send the values from before
        self.decoder.max_header_list_size = MAX_HEADER_LIST
        self.incoming_buffer = _FrameBuffer(server=not config.client_side)
        self.reading_head: int | None = None
        """The stream whose request or response could not be read, if that is why `receive_data` has failed."""
        self._weight = 0.0
        self._weighed = time.monotonic()

    def initiate_connection(self) -> None:
        h2.connection.H2Connection.initiate_connection(self)
        self.increment_flow_control_window(CONNECTION_WINDOW - self.inbound_flow_control_window)

    def receive_data(self, data: bytes) -> list[Any]:
        """The events of `data`. A ProtocolError is the last of them: what came before it still counts."""
        found: list[Any] = []
        try:
            for start in range(0, len(data), _SLICE):
                self.incoming_buffer.add_data(data[start : start + _SLICE])
                self.incoming_buffer.max_frame_size = self.max_inbound_frame_size
                for frame in self.incoming_buffer:
                    for event in self._receive_frame(frame):
                        if not self._window_updated(event):
                            found.append(event)
        except h2.exceptions.ProtocolError as e:
            error = e
        except (InvalidPaddingError, ValueError, IndexError) as e:
            error = h2.exceptions.ProtocolError(f"frame that cannot be read: {e}")
        else:
            return found
        if self.reading_head is None and (unfinished := self.incoming_buffer._headers_buffer):
            self.reading_head = unfinished[0].stream_id
        self._terminate_connection(error.error_code)
        return [*found, error]

    @property
    def unfinished_head(self) -> int | None:
        """The stream of which the peer has begun a header block and not ended it; 0: of the connection's preface."""
        buffer = self.incoming_buffer
        if self.state_machine.state is h2.connection.ConnectionState.CLOSED:
            return None
        if buffer._headers_buffer:
            return buffer._headers_buffer[0].stream_id
        return 0 if 0 < buffer._preamble_len < _PREFACE else None

    def length_differs(self, stream_id: int) -> bool:
        """Whether a message that has ended was of another length than it said. hyper-h2 looks in DATA frames only."""
        stream = self.streams.get(stream_id)
        if stream is None or stream._expected_content_length is None:
            return False
        return stream._expected_content_length != stream._actual_content_length

    def send_data(self, stream_id: int, data: Any, end_stream: bool = False, pad_length: None = None) -> None:
        self._weight = max(0.0, self._weight - len(data) / BYTES_PER_FRAME)
        super().send_data(stream_id, data, end_stream, pad_length)

    def reset_stream(self, stream_id: int, error_code: int = 0) -> None:
        self.stream_trailers.pop(stream_id, None)
        super().reset_stream(stream_id, error_code)

    def stream_ended(self) -> None:
        """A stream came to its proper end."""
        self._weight = max(0.0, self._weight - RESET_WEIGHT)

    def _window_updated(self, event: h2.events.Event) -> bool:
        """Send what was waiting for a window, or forget it. True: the event was no more than that."""
        if isinstance(event, h2.events.WindowUpdated):
            if event.stream_id:
                self.stream_window_updated(event.stream_id)
            else:
                self.connection_window_updated()
            return True
        if isinstance(event, h2.events.RemoteSettingsChanged):
            if self.encoder.header_table_size > MAX_ENCODER_TABLE:
                self.encoder.header_table_size = MAX_ENCODER_TABLE
            if h2.settings.SettingCodes.INITIAL_WINDOW_SIZE in event.changed_settings:
                self.connection_window_updated()
        elif isinstance(event, h2.events.StreamReset):
            self.stream_buffers.pop(event.stream_id, None)
            self.stream_trailers.pop(event.stream_id, None)
        elif isinstance(event, h2.events.ConnectionTerminated):
            self.stream_buffers.clear()
            self.stream_trailers.clear()
        return False

    def _receive_frame(self, frame: Frame) -> list[Any]:
        self._weigh(frame)
        if isinstance(frame, GoAwayFrame) and frame.error_code == h2.errors.ErrorCodes.NO_ERROR:
            # hyper-h2 would take the connection for closed, with all that is under way.
            return [GoingAway(frame.last_stream_id)]
        self.reading_head = frame.stream_id if isinstance(frame, HeadersFrame) else None
        try:
            found = super()._receive_frame(frame)
        except h2.exceptions.InvalidBodyLengthError:
            return self._wrong_length(frame)
        self.reading_head = None
        return found

    def _wrong_length(self, frame: Frame) -> list[Any]:
        """The message is broken, the connection is not."""
        self.reading_head = None
        code = h2.errors.ErrorCodes.PROTOCOL_ERROR
        self.reset_stream(frame.stream_id, code)
        if isinstance(frame, DataFrame) and frame.flow_controlled_length:
            self.acknowledge_received_data(frame.flow_controlled_length, frame.stream_id)
        return [h2.events.StreamReset(stream_id=frame.stream_id, error_code=code, remote_reset=False)]

    def _weigh(self, frame: Frame) -> None:
        if isinstance(frame, DataFrame) and frame.data:
            self._weight = max(0.0, self._weight - len(frame.data) / BYTES_PER_FRAME)
            return
        now = time.monotonic()
        self._weight = max(0.0, self._weight - (now - self._weighed) * PATIENCE_PER_S)
        self._weighed = now
        self._weight += RESET_WEIGHT if isinstance(frame, RstStreamFrame) else 1.0
        if self._weight > PATIENCE:
            raise h2.exceptions.DenialOfServiceError("too many frames that carry nothing, or streams taken back")
