from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Role(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FOLLOWER: _ClassVar[Role]
    PRE_CANDIDATE: _ClassVar[Role]
    CANDIDATE: _ClassVar[Role]
    LEADER: _ClassVar[Role]
FOLLOWER: Role
PRE_CANDIDATE: Role
CANDIDATE: Role
LEADER: Role

class StatusRequest(_message.Message):
    __slots__ = ("with_state_hash", "hash_index")
    WITH_STATE_HASH_FIELD_NUMBER: _ClassVar[int]
    HASH_INDEX_FIELD_NUMBER: _ClassVar[int]
    with_state_hash: bool
    hash_index: int
    def __init__(self, with_state_hash: _Optional[bool] = ..., hash_index: _Optional[int] = ...) -> None: ...

class PeerStatus(_message.Message):
    __slots__ = ("node_id", "match_index", "next_index", "probing", "silent_ms")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    MATCH_INDEX_FIELD_NUMBER: _ClassVar[int]
    NEXT_INDEX_FIELD_NUMBER: _ClassVar[int]
    PROBING_FIELD_NUMBER: _ClassVar[int]
    SILENT_MS_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    match_index: int
    next_index: int
    probing: bool
    silent_ms: float
    def __init__(self, node_id: _Optional[str] = ..., match_index: _Optional[int] = ..., next_index: _Optional[int] = ..., probing: _Optional[bool] = ..., silent_ms: _Optional[float] = ...) -> None: ...

class Counters(_message.Message):
    __slots__ = ("elections_started", "elections_won", "pre_votes_started", "step_downs", "leader_changes", "messages_sent", "messages_received", "messages_refused", "messages_dropped", "messages_unsent", "entries_appended", "entries_erased", "operations_answered", "duplicates_answered", "operations_refused", "fsyncs", "messages_delayed", "messages_duplicated", "messages_cut", "fsyncs_delayed", "fsyncs_stalled", "disk_errors")
    ELECTIONS_STARTED_FIELD_NUMBER: _ClassVar[int]
    ELECTIONS_WON_FIELD_NUMBER: _ClassVar[int]
    PRE_VOTES_STARTED_FIELD_NUMBER: _ClassVar[int]
    STEP_DOWNS_FIELD_NUMBER: _ClassVar[int]
    LEADER_CHANGES_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_SENT_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_RECEIVED_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_REFUSED_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_DROPPED_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_UNSENT_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_APPENDED_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_ERASED_FIELD_NUMBER: _ClassVar[int]
    OPERATIONS_ANSWERED_FIELD_NUMBER: _ClassVar[int]
    DUPLICATES_ANSWERED_FIELD_NUMBER: _ClassVar[int]
    OPERATIONS_REFUSED_FIELD_NUMBER: _ClassVar[int]
    FSYNCS_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_DELAYED_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_DUPLICATED_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_CUT_FIELD_NUMBER: _ClassVar[int]
    FSYNCS_DELAYED_FIELD_NUMBER: _ClassVar[int]
    FSYNCS_STALLED_FIELD_NUMBER: _ClassVar[int]
    DISK_ERRORS_FIELD_NUMBER: _ClassVar[int]
    elections_started: int
    elections_won: int
    pre_votes_started: int
    step_downs: int
    leader_changes: int
    messages_sent: int
    messages_received: int
    messages_refused: int
    messages_dropped: int
    messages_unsent: int
    entries_appended: int
    entries_erased: int
    operations_answered: int
    duplicates_answered: int
    operations_refused: int
    fsyncs: int
    messages_delayed: int
    messages_duplicated: int
    messages_cut: int
    fsyncs_delayed: int
    fsyncs_stalled: int
    disk_errors: int
    def __init__(self, elections_started: _Optional[int] = ..., elections_won: _Optional[int] = ..., pre_votes_started: _Optional[int] = ..., step_downs: _Optional[int] = ..., leader_changes: _Optional[int] = ..., messages_sent: _Optional[int] = ..., messages_received: _Optional[int] = ..., messages_refused: _Optional[int] = ..., messages_dropped: _Optional[int] = ..., messages_unsent: _Optional[int] = ..., entries_appended: _Optional[int] = ..., entries_erased: _Optional[int] = ..., operations_answered: _Optional[int] = ..., duplicates_answered: _Optional[int] = ..., operations_refused: _Optional[int] = ..., fsyncs: _Optional[int] = ..., messages_delayed: _Optional[int] = ..., messages_duplicated: _Optional[int] = ..., messages_cut: _Optional[int] = ..., fsyncs_delayed: _Optional[int] = ..., fsyncs_stalled: _Optional[int] = ..., disk_errors: _Optional[int] = ...) -> None: ...

class StatusReply(_message.Message):
    __slots__ = ("node_id", "cluster_id", "role", "current_term", "voted_for", "leader_id", "first_log_index", "last_log_index", "last_log_term", "durable_index", "commit_index", "last_applied", "peers", "session_count", "key_count", "applied_hash", "state_hash", "counters", "fsync_p50_us", "fsync_p99_us", "fsync_max_us", "loop_lag_p99_us", "loop_lag_max_us", "cpu_s", "resident_bytes", "pid", "now_ns", "pending_operations", "prefix_hash", "pending_bytes", "session_bytes", "unsynced_bytes")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    CURRENT_TERM_FIELD_NUMBER: _ClassVar[int]
    VOTED_FOR_FIELD_NUMBER: _ClassVar[int]
    LEADER_ID_FIELD_NUMBER: _ClassVar[int]
    FIRST_LOG_INDEX_FIELD_NUMBER: _ClassVar[int]
    LAST_LOG_INDEX_FIELD_NUMBER: _ClassVar[int]
    LAST_LOG_TERM_FIELD_NUMBER: _ClassVar[int]
    DURABLE_INDEX_FIELD_NUMBER: _ClassVar[int]
    COMMIT_INDEX_FIELD_NUMBER: _ClassVar[int]
    LAST_APPLIED_FIELD_NUMBER: _ClassVar[int]
    PEERS_FIELD_NUMBER: _ClassVar[int]
    SESSION_COUNT_FIELD_NUMBER: _ClassVar[int]
    KEY_COUNT_FIELD_NUMBER: _ClassVar[int]
    APPLIED_HASH_FIELD_NUMBER: _ClassVar[int]
    STATE_HASH_FIELD_NUMBER: _ClassVar[int]
    COUNTERS_FIELD_NUMBER: _ClassVar[int]
    FSYNC_P50_US_FIELD_NUMBER: _ClassVar[int]
    FSYNC_P99_US_FIELD_NUMBER: _ClassVar[int]
    FSYNC_MAX_US_FIELD_NUMBER: _ClassVar[int]
    LOOP_LAG_P99_US_FIELD_NUMBER: _ClassVar[int]
    LOOP_LAG_MAX_US_FIELD_NUMBER: _ClassVar[int]
    CPU_S_FIELD_NUMBER: _ClassVar[int]
    RESIDENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    NOW_NS_FIELD_NUMBER: _ClassVar[int]
    PENDING_OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    PREFIX_HASH_FIELD_NUMBER: _ClassVar[int]
    PENDING_BYTES_FIELD_NUMBER: _ClassVar[int]
    SESSION_BYTES_FIELD_NUMBER: _ClassVar[int]
    UNSYNCED_BYTES_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    cluster_id: str
    role: Role
    current_term: int
    voted_for: str
    leader_id: str
    first_log_index: int
    last_log_index: int
    last_log_term: int
    durable_index: int
    commit_index: int
    last_applied: int
    peers: _containers.RepeatedCompositeFieldContainer[PeerStatus]
    session_count: int
    key_count: int
    applied_hash: bytes
    state_hash: bytes
    counters: Counters
    fsync_p50_us: float
    fsync_p99_us: float
    fsync_max_us: float
    loop_lag_p99_us: float
    loop_lag_max_us: float
    cpu_s: float
    resident_bytes: int
    pid: int
    now_ns: int
    pending_operations: int
    prefix_hash: bytes
    pending_bytes: int
    session_bytes: int
    unsynced_bytes: int
    def __init__(self, node_id: _Optional[str] = ..., cluster_id: _Optional[str] = ..., role: _Optional[_Union[Role, str]] = ..., current_term: _Optional[int] = ..., voted_for: _Optional[str] = ..., leader_id: _Optional[str] = ..., first_log_index: _Optional[int] = ..., last_log_index: _Optional[int] = ..., last_log_term: _Optional[int] = ..., durable_index: _Optional[int] = ..., commit_index: _Optional[int] = ..., last_applied: _Optional[int] = ..., peers: _Optional[_Iterable[_Union[PeerStatus, _Mapping]]] = ..., session_count: _Optional[int] = ..., key_count: _Optional[int] = ..., applied_hash: _Optional[bytes] = ..., state_hash: _Optional[bytes] = ..., counters: _Optional[_Union[Counters, _Mapping]] = ..., fsync_p50_us: _Optional[float] = ..., fsync_p99_us: _Optional[float] = ..., fsync_max_us: _Optional[float] = ..., loop_lag_p99_us: _Optional[float] = ..., loop_lag_max_us: _Optional[float] = ..., cpu_s: _Optional[float] = ..., resident_bytes: _Optional[int] = ..., pid: _Optional[int] = ..., now_ns: _Optional[int] = ..., pending_operations: _Optional[int] = ..., prefix_hash: _Optional[bytes] = ..., pending_bytes: _Optional[int] = ..., session_bytes: _Optional[int] = ..., unsynced_bytes: _Optional[int] = ...) -> None: ...

class LogRequest(_message.Message):
    __slots__ = ("first_index", "end_index")
    FIRST_INDEX_FIELD_NUMBER: _ClassVar[int]
    END_INDEX_FIELD_NUMBER: _ClassVar[int]
    first_index: int
    end_index: int
    def __init__(self, first_index: _Optional[int] = ..., end_index: _Optional[int] = ...) -> None: ...

class LogReply(_message.Message):
    __slots__ = ("first_index", "terms", "payloads")
    FIRST_INDEX_FIELD_NUMBER: _ClassVar[int]
    TERMS_FIELD_NUMBER: _ClassVar[int]
    PAYLOADS_FIELD_NUMBER: _ClassVar[int]
    first_index: int
    terms: _containers.RepeatedScalarFieldContainer[int]
    payloads: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, first_index: _Optional[int] = ..., terms: _Optional[_Iterable[int]] = ..., payloads: _Optional[_Iterable[bytes]] = ...) -> None: ...

class SamplesRequest(_message.Message):
    __slots__ = ("since_ns",)
    SINCE_NS_FIELD_NUMBER: _ClassVar[int]
    since_ns: int
    def __init__(self, since_ns: _Optional[int] = ...) -> None: ...

class SamplesReply(_message.Message):
    __slots__ = ("fsync_us", "loop_lag_us", "round_trip_us")
    FSYNC_US_FIELD_NUMBER: _ClassVar[int]
    LOOP_LAG_US_FIELD_NUMBER: _ClassVar[int]
    ROUND_TRIP_US_FIELD_NUMBER: _ClassVar[int]
    fsync_us: _containers.RepeatedScalarFieldContainer[int]
    loop_lag_us: _containers.RepeatedScalarFieldContainer[int]
    round_trip_us: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, fsync_us: _Optional[_Iterable[int]] = ..., loop_lag_us: _Optional[_Iterable[int]] = ..., round_trip_us: _Optional[_Iterable[int]] = ...) -> None: ...

class TraceRequest(_message.Message):
    __slots__ = ("after", "follow")
    AFTER_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    after: int
    follow: bool
    def __init__(self, after: _Optional[int] = ..., follow: _Optional[bool] = ...) -> None: ...

class TraceEvent(_message.Message):
    __slots__ = ("number", "time_ns", "kind", "term", "index", "peer_id", "detail", "log_term", "durable_index")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    TIME_NS_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    PEER_ID_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    LOG_TERM_FIELD_NUMBER: _ClassVar[int]
    DURABLE_INDEX_FIELD_NUMBER: _ClassVar[int]
    number: int
    time_ns: int
    kind: str
    term: int
    index: int
    peer_id: str
    detail: str
    log_term: int
    durable_index: int
    def __init__(self, number: _Optional[int] = ..., time_ns: _Optional[int] = ..., kind: _Optional[str] = ..., term: _Optional[int] = ..., index: _Optional[int] = ..., peer_id: _Optional[str] = ..., detail: _Optional[str] = ..., log_term: _Optional[int] = ..., durable_index: _Optional[int] = ...) -> None: ...
