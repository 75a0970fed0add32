# @generated from proto/ by proto/generate.sh. Do not edit.
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ClientMessage(_message.Message):
    __slots__ = ("open", "frames", "beat", "bye")
    OPEN_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    BEAT_FIELD_NUMBER: _ClassVar[int]
    BYE_FIELD_NUMBER: _ClassVar[int]
    open: Open
    frames: Frames
    beat: Beat
    bye: Bye
    def __init__(self, open: _Optional[_Union[Open, _Mapping]] = ..., frames: _Optional[_Union[Frames, _Mapping]] = ..., beat: _Optional[_Union[Beat, _Mapping]] = ..., bye: _Optional[_Union[Bye, _Mapping]] = ...) -> None: ...

class Open(_message.Message):
    __slots__ = ("protocol", "open_frame", "first_available_seq", "next_seq", "client", "storage_epoch", "replay")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    OPEN_FRAME_FIELD_NUMBER: _ClassVar[int]
    FIRST_AVAILABLE_SEQ_FIELD_NUMBER: _ClassVar[int]
    NEXT_SEQ_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    STORAGE_EPOCH_FIELD_NUMBER: _ClassVar[int]
    REPLAY_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    open_frame: bytes
    first_available_seq: int
    next_seq: int
    client: str
    storage_epoch: bytes
    replay: bool
    def __init__(self, protocol: _Optional[int] = ..., open_frame: _Optional[bytes] = ..., first_available_seq: _Optional[int] = ..., next_seq: _Optional[int] = ..., client: _Optional[str] = ..., storage_epoch: _Optional[bytes] = ..., replay: _Optional[bool] = ...) -> None: ...

class Frames(_message.Message):
    __slots__ = ("frames",)
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    frames: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, frames: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Beat(_message.Message):
    __slots__ = ("next_seq", "backlog_frames", "backlog_bytes", "lag_s", "dropped_rows", "retries", "wall_us")
    NEXT_SEQ_FIELD_NUMBER: _ClassVar[int]
    BACKLOG_FRAMES_FIELD_NUMBER: _ClassVar[int]
    BACKLOG_BYTES_FIELD_NUMBER: _ClassVar[int]
    LAG_S_FIELD_NUMBER: _ClassVar[int]
    DROPPED_ROWS_FIELD_NUMBER: _ClassVar[int]
    RETRIES_FIELD_NUMBER: _ClassVar[int]
    WALL_US_FIELD_NUMBER: _ClassVar[int]
    next_seq: int
    backlog_frames: int
    backlog_bytes: int
    lag_s: float
    dropped_rows: int
    retries: int
    wall_us: int
    def __init__(self, next_seq: _Optional[int] = ..., backlog_frames: _Optional[int] = ..., backlog_bytes: _Optional[int] = ..., lag_s: _Optional[float] = ..., dropped_rows: _Optional[int] = ..., retries: _Optional[int] = ..., wall_us: _Optional[int] = ...) -> None: ...

class Bye(_message.Message):
    __slots__ = ("died",)
    DIED_FIELD_NUMBER: _ClassVar[int]
    died: bool
    def __init__(self, died: _Optional[bool] = ...) -> None: ...

class ServerMessage(_message.Message):
    __slots__ = ("open_ok", "ack", "credit", "throttle", "reject", "rewind", "drain", "notice")
    OPEN_OK_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    THROTTLE_FIELD_NUMBER: _ClassVar[int]
    REJECT_FIELD_NUMBER: _ClassVar[int]
    REWIND_FIELD_NUMBER: _ClassVar[int]
    DRAIN_FIELD_NUMBER: _ClassVar[int]
    NOTICE_FIELD_NUMBER: _ClassVar[int]
    open_ok: OpenOk
    ack: Ack
    credit: Credit
    throttle: Throttle
    reject: Reject
    rewind: Rewind
    drain: Drain
    notice: Notice
    def __init__(self, open_ok: _Optional[_Union[OpenOk, _Mapping]] = ..., ack: _Optional[_Union[Ack, _Mapping]] = ..., credit: _Optional[_Union[Credit, _Mapping]] = ..., throttle: _Optional[_Union[Throttle, _Mapping]] = ..., reject: _Optional[_Union[Reject, _Mapping]] = ..., rewind: _Optional[_Union[Rewind, _Mapping]] = ..., drain: _Optional[_Union[Drain, _Mapping]] = ..., notice: _Optional[_Union[Notice, _Mapping]] = ...) -> None: ...

class OpenOk(_message.Message):
    __slots__ = ("next_seq", "storage_epoch", "run_url", "credit_bytes", "run_existed", "last_step", "durability", "max_frame_bytes", "last_frame_hash")
    NEXT_SEQ_FIELD_NUMBER: _ClassVar[int]
    STORAGE_EPOCH_FIELD_NUMBER: _ClassVar[int]
    RUN_URL_FIELD_NUMBER: _ClassVar[int]
    CREDIT_BYTES_FIELD_NUMBER: _ClassVar[int]
    RUN_EXISTED_FIELD_NUMBER: _ClassVar[int]
    LAST_STEP_FIELD_NUMBER: _ClassVar[int]
    DURABILITY_FIELD_NUMBER: _ClassVar[int]
    MAX_FRAME_BYTES_FIELD_NUMBER: _ClassVar[int]
    LAST_FRAME_HASH_FIELD_NUMBER: _ClassVar[int]
    next_seq: int
    storage_epoch: bytes
    run_url: str
    credit_bytes: int
    run_existed: bool
    last_step: int
    durability: str
    max_frame_bytes: int
    last_frame_hash: bytes
    def __init__(self, next_seq: _Optional[int] = ..., storage_epoch: _Optional[bytes] = ..., run_url: _Optional[str] = ..., credit_bytes: _Optional[int] = ..., run_existed: _Optional[bool] = ..., last_step: _Optional[int] = ..., durability: _Optional[str] = ..., max_frame_bytes: _Optional[int] = ..., last_frame_hash: _Optional[bytes] = ...) -> None: ...

class Ack(_message.Message):
    __slots__ = ("received_next_seq", "durable_next_seq")
    RECEIVED_NEXT_SEQ_FIELD_NUMBER: _ClassVar[int]
    DURABLE_NEXT_SEQ_FIELD_NUMBER: _ClassVar[int]
    received_next_seq: int
    durable_next_seq: int
    def __init__(self, received_next_seq: _Optional[int] = ..., durable_next_seq: _Optional[int] = ...) -> None: ...

class Credit(_message.Message):
    __slots__ = ("total_bytes",)
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    total_bytes: int
    def __init__(self, total_bytes: _Optional[int] = ...) -> None: ...

class Throttle(_message.Message):
    __slots__ = ("retry_after_ms", "bytes_per_s", "linger_ms", "reason")
    RETRY_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    BYTES_PER_S_FIELD_NUMBER: _ClassVar[int]
    LINGER_MS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    retry_after_ms: int
    bytes_per_s: int
    linger_ms: int
    reason: str
    def __init__(self, retry_after_ms: _Optional[int] = ..., bytes_per_s: _Optional[int] = ..., linger_ms: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class Reject(_message.Message):
    __slots__ = ("code", "reason", "seq")
    class Code(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        UNSPECIFIED: _ClassVar[Reject.Code]
        BAD_OPEN: _ClassVar[Reject.Code]
        INCOMPATIBLE: _ClassVar[Reject.Code]
        UNAUTHENTICATED: _ClassVar[Reject.Code]
        FORBIDDEN: _ClassVar[Reject.Code]
        RUN_DELETED: _ClassVar[Reject.Code]
        FRAME_TOO_LARGE: _ClassVar[Reject.Code]
        UNKNOWN_KIND: _ClassVar[Reject.Code]
    UNSPECIFIED: Reject.Code
    BAD_OPEN: Reject.Code
    INCOMPATIBLE: Reject.Code
    UNAUTHENTICATED: Reject.Code
    FORBIDDEN: Reject.Code
    RUN_DELETED: Reject.Code
    FRAME_TOO_LARGE: Reject.Code
    UNKNOWN_KIND: Reject.Code
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    code: Reject.Code
    reason: str
    seq: int
    def __init__(self, code: _Optional[_Union[Reject.Code, str]] = ..., reason: _Optional[str] = ..., seq: _Optional[int] = ...) -> None: ...

class Rewind(_message.Message):
    __slots__ = ("next_seq", "reason")
    NEXT_SEQ_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    next_seq: int
    reason: str
    def __init__(self, next_seq: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class Drain(_message.Message):
    __slots__ = ("reconnect_after_ms",)
    RECONNECT_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    reconnect_after_ms: int
    def __init__(self, reconnect_after_ms: _Optional[int] = ...) -> None: ...

class Notice(_message.Message):
    __slots__ = ("text",)
    TEXT_FIELD_NUMBER: _ClassVar[int]
    text: str
    def __init__(self, text: _Optional[str] = ...) -> None: ...
