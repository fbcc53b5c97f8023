"""HTTP/2 by hand, for what no gRPC client would send (RFC 9113, RFC 7541)."""

import asyncio
import struct
from dataclasses import dataclass
from typing import Self

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS = 1, 4
CANCEL = 8
ENHANCE_YOUR_CALM = 11
MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE = 3, 4
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


@dataclass(frozen=True)
class Frame:
    """One frame."""

    kind: int
    flags: int
    stream: int
    payload: bytes


class Connection:
    """A connection on which anything can be sent."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, address: object, settings: bytes = b"") -> Self:
        """Connect and greet. `settings`: pairs of identifier and value."""
        host, _, port = str(address).rpartition(":")
        self = cls(*await asyncio.open_connection(host, int(port)))
        self.writer.write(_PREFACE)
        self.send(SETTINGS, 0, 0, settings)
        return self

    def send(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        """Send a frame."""
        self.writer.write(struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload)

    def call(self, stream: int, path: bytes, *metadata: tuple[bytes, bytes], flags: int = END_HEADERS) -> None:
        """Begin a gRPC call; no message is sent."""
        standard = (
            (b":method", b"POST"), (b":scheme", b"http"), (b":path", path), (b":authority", b"localhost"),
            (b"te", b"trailers"), (b"content-type", b"application/grpc"),
        )  # fmt: skip
        self.send(HEADERS, flags, stream, b"".join(field(n, v) for n, v in (*standard, *metadata)))

    async def frame(self, seconds: float = 10) -> Frame | None:
        """The next frame; None if the other end has closed."""
        try:
            async with asyncio.timeout(seconds):
                head = await self._reader.readexactly(9)
                kind, flags, stream = struct.unpack(">BBI", head[3:])
                return Frame(kind, flags, stream, await self._reader.readexactly(int.from_bytes(head[:3], "big")))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None

    async def until(self, kind: int, seconds: float = 10) -> Frame | None:
        """The next frame of this kind; None if the other end closes before. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            while (frame := await self.frame(seconds)) is not None:
                if frame.kind == kind:
                    return frame
                if frame.kind == SETTINGS and not frame.flags & 1:
                    self.send(SETTINGS, 1, 0, b"")
        return None

    def close(self) -> None:
        """Hang up."""
        self.writer.close()


def field(name: bytes, value: bytes) -> bytes:
    """A header field, literal and not indexed."""
    return b"\0" + _string(name) + _string(value)


def _string(text: bytes) -> bytes:
    size = len(text)
    if size < 127:
        return bytes([size]) + text
    size -= 127
    prefix = bytearray([127])
    while size >= 128:
        prefix.append(size % 128 | 128)
        size //= 128
    prefix.append(size)
    return bytes(prefix) + text
