"""Client messages off the wire: the bytes are looked at before protobuf unfolds them.

A frame of no bytes costs a client two bytes and the server, once it is an object, fifty times as many: a message of the allowed
size could fill the memory. So the parts of a message are counted first.
"""

from __future__ import annotations

from google.protobuf.message import DecodeError

from runferry import _native
from runferry.server._generated import ingest_pb2 as pb

MAX_PARTS = 1 << 17
"""Frames of one message, at most: above what 8 MiB of the smallest frames make."""


class BadMessageError(ValueError):
    """Not a message of the protocol; the text says why."""


def parsed(raw: bytes) -> pb.ClientMessage:
    """The message.

    Raises:
        BadMessageError: It has too many parts, or is none.
    """
    parts = _native.message_parts(raw)
    if parts > MAX_PARTS:
        raise BadMessageError(f"a message of more than {MAX_PARTS} parts")
    try:
        return pb.ClientMessage.FromString(raw)
    except DecodeError as error:
        raise BadMessageError(f"not a message of the protocol: {error}") from error
