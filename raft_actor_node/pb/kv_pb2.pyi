from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class OperationKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OPERATION_KIND_UNSPECIFIED: _ClassVar[OperationKind]
    PUT: _ClassVar[OperationKind]
    GET: _ClassVar[OperationKind]
    DELETE: _ClassVar[OperationKind]
    COMPARE_AND_SWAP: _ClassVar[OperationKind]
    APPEND: _ClassVar[OperationKind]
    OPEN_SESSION: _ClassVar[OperationKind]

class ErrorCode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OK: _ClassVar[ErrorCode]
    NOT_LEADER: _ClassVar[ErrorCode]
    OVERLOADED: _ClassVar[ErrorCode]
    BAD_ARGUMENT: _ClassVar[ErrorCode]
    OUTCOME_UNKNOWN: _ClassVar[ErrorCode]
    SESSION_UNKNOWN: _ClassVar[ErrorCode]
    SEQUENCE_STALE: _ClassVar[ErrorCode]
    SEQUENCE_REUSED: _ClassVar[ErrorCode]
    VALUE_TOO_LARGE: _ClassVar[ErrorCode]
OPERATION_KIND_UNSPECIFIED: OperationKind
PUT: OperationKind
GET: OperationKind
DELETE: OperationKind
COMPARE_AND_SWAP: OperationKind
APPEND: OperationKind
OPEN_SESSION: OperationKind
OK: ErrorCode
NOT_LEADER: ErrorCode
OVERLOADED: ErrorCode
BAD_ARGUMENT: ErrorCode
OUTCOME_UNKNOWN: ErrorCode
SESSION_UNKNOWN: ErrorCode
SEQUENCE_STALE: ErrorCode
SEQUENCE_REUSED: ErrorCode
VALUE_TOO_LARGE: ErrorCode

class ErrorDetail(_message.Message):
    __slots__ = ("code", "leader_hint", "message")
    CODE_FIELD_NUMBER: _ClassVar[int]
    LEADER_HINT_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    code: ErrorCode
    leader_hint: str
    message: str
    def __init__(self, code: _Optional[_Union[ErrorCode, str]] = ..., leader_hint: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class Operation(_message.Message):
    __slots__ = ("id", "kind", "key", "value", "expected", "session_id", "sequence")
    ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    id: int
    kind: OperationKind
    key: bytes
    value: bytes
    expected: bytes
    session_id: int
    sequence: int
    def __init__(self, id: _Optional[int] = ..., kind: _Optional[_Union[OperationKind, str]] = ..., key: _Optional[bytes] = ..., value: _Optional[bytes] = ..., expected: _Optional[bytes] = ..., session_id: _Optional[int] = ..., sequence: _Optional[int] = ...) -> None: ...

class OperationBatch(_message.Message):
    __slots__ = ("client_id", "operations")
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    client_id: str
    operations: _containers.RepeatedCompositeFieldContainer[Operation]
    def __init__(self, client_id: _Optional[str] = ..., operations: _Optional[_Iterable[_Union[Operation, _Mapping]]] = ...) -> None: ...

class OperationResult(_message.Message):
    __slots__ = ("id", "error", "found", "value", "number", "leader_hint", "message")
    ID_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    FOUND_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    LEADER_HINT_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    id: int
    error: ErrorCode
    found: bool
    value: bytes
    number: int
    leader_hint: str
    message: str
    def __init__(self, id: _Optional[int] = ..., error: _Optional[_Union[ErrorCode, str]] = ..., found: _Optional[bool] = ..., value: _Optional[bytes] = ..., number: _Optional[int] = ..., leader_hint: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class ResultBatch(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[OperationResult]
    def __init__(self, results: _Optional[_Iterable[_Union[OperationResult, _Mapping]]] = ...) -> None: ...

class OpenSessionRequest(_message.Message):
    __slots__ = ("client_id",)
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    client_id: str
    def __init__(self, client_id: _Optional[str] = ...) -> None: ...

class OpenSessionReply(_message.Message):
    __slots__ = ("session_id",)
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    session_id: int
    def __init__(self, session_id: _Optional[int] = ...) -> None: ...

class PutRequest(_message.Message):
    __slots__ = ("key", "value", "session_id", "sequence", "client_id")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    key: bytes
    value: bytes
    session_id: int
    sequence: int
    client_id: str
    def __init__(self, key: _Optional[bytes] = ..., value: _Optional[bytes] = ..., session_id: _Optional[int] = ..., sequence: _Optional[int] = ..., client_id: _Optional[str] = ...) -> None: ...

class PutReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetRequest(_message.Message):
    __slots__ = ("key", "client_id")
    KEY_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    key: bytes
    client_id: str
    def __init__(self, key: _Optional[bytes] = ..., client_id: _Optional[str] = ...) -> None: ...

class GetReply(_message.Message):
    __slots__ = ("found", "value")
    FOUND_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    found: bool
    value: bytes
    def __init__(self, found: _Optional[bool] = ..., value: _Optional[bytes] = ...) -> None: ...

class DeleteRequest(_message.Message):
    __slots__ = ("key", "session_id", "sequence", "client_id")
    KEY_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    key: bytes
    session_id: int
    sequence: int
    client_id: str
    def __init__(self, key: _Optional[bytes] = ..., session_id: _Optional[int] = ..., sequence: _Optional[int] = ..., client_id: _Optional[str] = ...) -> None: ...

class DeleteReply(_message.Message):
    __slots__ = ("found",)
    FOUND_FIELD_NUMBER: _ClassVar[int]
    found: bool
    def __init__(self, found: _Optional[bool] = ...) -> None: ...

class CompareAndSwapRequest(_message.Message):
    __slots__ = ("key", "expected", "value", "session_id", "sequence", "client_id")
    KEY_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    key: bytes
    expected: bytes
    value: bytes
    session_id: int
    sequence: int
    client_id: str
    def __init__(self, key: _Optional[bytes] = ..., expected: _Optional[bytes] = ..., value: _Optional[bytes] = ..., session_id: _Optional[int] = ..., sequence: _Optional[int] = ..., client_id: _Optional[str] = ...) -> None: ...

class CompareAndSwapReply(_message.Message):
    __slots__ = ("swapped", "current")
    SWAPPED_FIELD_NUMBER: _ClassVar[int]
    CURRENT_FIELD_NUMBER: _ClassVar[int]
    swapped: bool
    current: bytes
    def __init__(self, swapped: _Optional[bool] = ..., current: _Optional[bytes] = ...) -> None: ...

class AppendRequest(_message.Message):
    __slots__ = ("key", "value", "session_id", "sequence", "client_id")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    key: bytes
    value: bytes
    session_id: int
    sequence: int
    client_id: str
    def __init__(self, key: _Optional[bytes] = ..., value: _Optional[bytes] = ..., session_id: _Optional[int] = ..., sequence: _Optional[int] = ..., client_id: _Optional[str] = ...) -> None: ...

class AppendReply(_message.Message):
    __slots__ = ("length",)
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    length: int
    def __init__(self, length: _Optional[int] = ...) -> None: ...
