"""Raw HTTP/2, as little of it as it takes to open very many calls of the write door and drop each at once."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADERS, RST_STREAM, SETTINGS = 1, 3, 4
END_HEADERS = 4
CANCEL = 8
MOST_STREAMS = 1 << 30
CALL = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/runferry.v1.Ingest/Stream"),
    (":authority", "localhost"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
]


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """One frame."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def header_block(headers: Sequence[tuple[str, str]]) -> bytes:
    """Headers, none of them compressed."""
    return b"".join(bytes([0, len(name)]) + name.encode() + bytes([len(value)]) + value.encode() for name, value in headers)


def connect(port: int) -> socket.socket:
    """A connection that has said it speaks HTTP/2."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=20)
    connection.sendall(PREFACE + frame(SETTINGS, 0, 0, b""))
    return connection


def open_and_drop(port: int, calls: int, *, calls_at_once: int = 100) -> tuple[int, int]:
    """Open so many calls and reset each behind its headers; returns calls and the connections that took, for the server may end them."""
    block = header_block(CALL)
    done = connections = 0
    while done < calls:
        connections += 1
        with connect(port) as connection:
            stream = 1
            try:
                while done < calls and stream < MOST_STREAMS:
                    streams = range(stream, stream + 2 * calls_at_once, 2)
                    reset = struct.pack(">I", CANCEL)
                    connection.sendall(
                        b"".join(frame(HEADERS, END_HEADERS, number, block) + frame(RST_STREAM, 0, number, reset) for number in streams)
                    )
                    stream += 2 * calls_at_once
                    done += calls_at_once
                    _listen(connection)
            except OSError:
                continue  # its right: the next connection goes on
    return done, connections


def _listen(connection: socket.socket) -> None:
    """Take what has come, without waiting; raises at the end of the connection."""
    connection.settimeout(0)
    try:
        while True:
            if not connection.recv(1 << 16):
                raise ConnectionResetError
    except BlockingIOError:
        pass
    finally:
        connection.settimeout(20)
