from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LinkMessages(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ALL_MESSAGES: _ClassVar[LinkMessages]
    REQUESTS: _ClassVar[LinkMessages]
    REPLIES: _ClassVar[LinkMessages]

class DiskCall(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DISK_WRITE: _ClassVar[DiskCall]
    DISK_FSYNC: _ClassVar[DiskCall]

class DiskErrorKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NO_DISK_ERROR: _ClassVar[DiskErrorKind]
    NO_SPACE: _ClassVar[DiskErrorKind]
    IO_ERROR: _ClassVar[DiskErrorKind]
ALL_MESSAGES: LinkMessages
REQUESTS: LinkMessages
REPLIES: LinkMessages
DISK_WRITE: DiskCall
DISK_FSYNC: DiskCall
NO_DISK_ERROR: DiskErrorKind
NO_SPACE: DiskErrorKind
IO_ERROR: DiskErrorKind

class LinkRule(_message.Message):
    __slots__ = ("from_id", "to_id", "messages", "cut", "drop", "duplicate", "delay_ms", "jitter_ms", "tail_ms", "late_ms", "bytes_per_s")
    FROM_ID_FIELD_NUMBER: _ClassVar[int]
    TO_ID_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    CUT_FIELD_NUMBER: _ClassVar[int]
    DROP_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_FIELD_NUMBER: _ClassVar[int]
    DELAY_MS_FIELD_NUMBER: _ClassVar[int]
    JITTER_MS_FIELD_NUMBER: _ClassVar[int]
    TAIL_MS_FIELD_NUMBER: _ClassVar[int]
    LATE_MS_FIELD_NUMBER: _ClassVar[int]
    BYTES_PER_S_FIELD_NUMBER: _ClassVar[int]
    from_id: str
    to_id: str
    messages: LinkMessages
    cut: bool
    drop: float
    duplicate: float
    delay_ms: float
    jitter_ms: float
    tail_ms: float
    late_ms: float
    bytes_per_s: int
    def __init__(self, from_id: _Optional[str] = ..., to_id: _Optional[str] = ..., messages: _Optional[_Union[LinkMessages, str]] = ..., cut: _Optional[bool] = ..., drop: _Optional[float] = ..., duplicate: _Optional[float] = ..., delay_ms: _Optional[float] = ..., jitter_ms: _Optional[float] = ..., tail_ms: _Optional[float] = ..., late_ms: _Optional[float] = ..., bytes_per_s: _Optional[int] = ...) -> None: ...

class SetLinksRequest(_message.Message):
    __slots__ = ("rules",)
    RULES_FIELD_NUMBER: _ClassVar[int]
    rules: _containers.RepeatedCompositeFieldContainer[LinkRule]
    def __init__(self, rules: _Optional[_Iterable[_Union[LinkRule, _Mapping]]] = ...) -> None: ...

class SetLinksReply(_message.Message):
    __slots__ = ("applied_ns",)
    APPLIED_NS_FIELD_NUMBER: _ClassVar[int]
    applied_ns: int
    def __init__(self, applied_ns: _Optional[int] = ...) -> None: ...

class GetLinksRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetLinksReply(_message.Message):
    __slots__ = ("rules", "dropped", "delayed", "duplicated", "cut")
    RULES_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    DELAYED_FIELD_NUMBER: _ClassVar[int]
    DUPLICATED_FIELD_NUMBER: _ClassVar[int]
    CUT_FIELD_NUMBER: _ClassVar[int]
    rules: _containers.RepeatedCompositeFieldContainer[LinkRule]
    dropped: int
    delayed: int
    duplicated: int
    cut: int
    def __init__(self, rules: _Optional[_Iterable[_Union[LinkRule, _Mapping]]] = ..., dropped: _Optional[int] = ..., delayed: _Optional[int] = ..., duplicated: _Optional[int] = ..., cut: _Optional[int] = ...) -> None: ...

class DiskFault(_message.Message):
    __slots__ = ("fsync_latency_ms", "stall", "error", "on")
    FSYNC_LATENCY_MS_FIELD_NUMBER: _ClassVar[int]
    STALL_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    ON_FIELD_NUMBER: _ClassVar[int]
    fsync_latency_ms: float
    stall: bool
    error: DiskErrorKind
    on: DiskCall
    def __init__(self, fsync_latency_ms: _Optional[float] = ..., stall: _Optional[bool] = ..., error: _Optional[_Union[DiskErrorKind, str]] = ..., on: _Optional[_Union[DiskCall, str]] = ...) -> None: ...

class NodeFaults(_message.Message):
    __slots__ = ("disk",)
    DISK_FIELD_NUMBER: _ClassVar[int]
    disk: DiskFault
    def __init__(self, disk: _Optional[_Union[DiskFault, _Mapping]] = ...) -> None: ...

class SetNodeFaultsRequest(_message.Message):
    __slots__ = ("faults",)
    FAULTS_FIELD_NUMBER: _ClassVar[int]
    faults: NodeFaults
    def __init__(self, faults: _Optional[_Union[NodeFaults, _Mapping]] = ...) -> None: ...

class SetNodeFaultsReply(_message.Message):
    __slots__ = ("applied_ns",)
    APPLIED_NS_FIELD_NUMBER: _ClassVar[int]
    applied_ns: int
    def __init__(self, applied_ns: _Optional[int] = ...) -> None: ...
