from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PeerRequests(_message.Message):
    __slots__ = ("cluster_id", "from_id", "to_id", "requests", "members")
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    FROM_ID_FIELD_NUMBER: _ClassVar[int]
    TO_ID_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    cluster_id: str
    from_id: str
    to_id: str
    requests: _containers.RepeatedCompositeFieldContainer[PeerRequest]
    members: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, cluster_id: _Optional[str] = ..., from_id: _Optional[str] = ..., to_id: _Optional[str] = ..., requests: _Optional[_Iterable[_Union[PeerRequest, _Mapping]]] = ..., members: _Optional[_Iterable[str]] = ...) -> None: ...

class PeerRequest(_message.Message):
    __slots__ = ("request_vote", "append_entries", "fragment")
    REQUEST_VOTE_FIELD_NUMBER: _ClassVar[int]
    APPEND_ENTRIES_FIELD_NUMBER: _ClassVar[int]
    FRAGMENT_FIELD_NUMBER: _ClassVar[int]
    request_vote: RequestVoteRequest
    append_entries: AppendEntriesRequest
    fragment: AppendEntriesFragment
    def __init__(self, request_vote: _Optional[_Union[RequestVoteRequest, _Mapping]] = ..., append_entries: _Optional[_Union[AppendEntriesRequest, _Mapping]] = ..., fragment: _Optional[_Union[AppendEntriesFragment, _Mapping]] = ...) -> None: ...

class PeerReplies(_message.Message):
    __slots__ = ("cluster_id", "from_id", "to_id", "replies", "members", "taken")
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    FROM_ID_FIELD_NUMBER: _ClassVar[int]
    TO_ID_FIELD_NUMBER: _ClassVar[int]
    REPLIES_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    TAKEN_FIELD_NUMBER: _ClassVar[int]
    cluster_id: str
    from_id: str
    to_id: str
    replies: _containers.RepeatedCompositeFieldContainer[PeerReply]
    members: _containers.RepeatedScalarFieldContainer[str]
    taken: int
    def __init__(self, cluster_id: _Optional[str] = ..., from_id: _Optional[str] = ..., to_id: _Optional[str] = ..., replies: _Optional[_Iterable[_Union[PeerReply, _Mapping]]] = ..., members: _Optional[_Iterable[str]] = ..., taken: _Optional[int] = ...) -> None: ...

class PeerReply(_message.Message):
    __slots__ = ("request_vote", "append_entries")
    REQUEST_VOTE_FIELD_NUMBER: _ClassVar[int]
    APPEND_ENTRIES_FIELD_NUMBER: _ClassVar[int]
    request_vote: RequestVoteReply
    append_entries: AppendEntriesReply
    def __init__(self, request_vote: _Optional[_Union[RequestVoteReply, _Mapping]] = ..., append_entries: _Optional[_Union[AppendEntriesReply, _Mapping]] = ...) -> None: ...

class RequestVoteRequest(_message.Message):
    __slots__ = ("term", "last_log_index", "last_log_term", "pre_vote", "sequence")
    TERM_FIELD_NUMBER: _ClassVar[int]
    LAST_LOG_INDEX_FIELD_NUMBER: _ClassVar[int]
    LAST_LOG_TERM_FIELD_NUMBER: _ClassVar[int]
    PRE_VOTE_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    term: int
    last_log_index: int
    last_log_term: int
    pre_vote: bool
    sequence: int
    def __init__(self, term: _Optional[int] = ..., last_log_index: _Optional[int] = ..., last_log_term: _Optional[int] = ..., pre_vote: _Optional[bool] = ..., sequence: _Optional[int] = ...) -> None: ...

class RequestVoteReply(_message.Message):
    __slots__ = ("term", "request_term", "vote_granted", "pre_vote", "sequence")
    TERM_FIELD_NUMBER: _ClassVar[int]
    REQUEST_TERM_FIELD_NUMBER: _ClassVar[int]
    VOTE_GRANTED_FIELD_NUMBER: _ClassVar[int]
    PRE_VOTE_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    term: int
    request_term: int
    vote_granted: bool
    pre_vote: bool
    sequence: int
    def __init__(self, term: _Optional[int] = ..., request_term: _Optional[int] = ..., vote_granted: _Optional[bool] = ..., pre_vote: _Optional[bool] = ..., sequence: _Optional[int] = ...) -> None: ...

class AppendEntriesRequest(_message.Message):
    __slots__ = ("term", "prev_log_index", "prev_log_term", "entry_terms", "entry_payloads", "leader_commit", "sequence")
    TERM_FIELD_NUMBER: _ClassVar[int]
    PREV_LOG_INDEX_FIELD_NUMBER: _ClassVar[int]
    PREV_LOG_TERM_FIELD_NUMBER: _ClassVar[int]
    ENTRY_TERMS_FIELD_NUMBER: _ClassVar[int]
    ENTRY_PAYLOADS_FIELD_NUMBER: _ClassVar[int]
    LEADER_COMMIT_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    term: int
    prev_log_index: int
    prev_log_term: int
    entry_terms: _containers.RepeatedScalarFieldContainer[int]
    entry_payloads: _containers.RepeatedScalarFieldContainer[bytes]
    leader_commit: int
    sequence: int
    def __init__(self, term: _Optional[int] = ..., prev_log_index: _Optional[int] = ..., prev_log_term: _Optional[int] = ..., entry_terms: _Optional[_Iterable[int]] = ..., entry_payloads: _Optional[_Iterable[bytes]] = ..., leader_commit: _Optional[int] = ..., sequence: _Optional[int] = ...) -> None: ...

class AppendEntriesFragment(_message.Message):
    __slots__ = ("head", "offset", "total", "data")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    head: AppendEntriesRequest
    offset: int
    total: int
    data: bytes
    def __init__(self, head: _Optional[_Union[AppendEntriesRequest, _Mapping]] = ..., offset: _Optional[int] = ..., total: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class AppendEntriesReply(_message.Message):
    __slots__ = ("term", "request_term", "success", "match_index", "rejected_index", "conflict_term", "conflict_index", "sequence")
    TERM_FIELD_NUMBER: _ClassVar[int]
    REQUEST_TERM_FIELD_NUMBER: _ClassVar[int]
    SUCCESS_FIELD_NUMBER: _ClassVar[int]
    MATCH_INDEX_FIELD_NUMBER: _ClassVar[int]
    REJECTED_INDEX_FIELD_NUMBER: _ClassVar[int]
    CONFLICT_TERM_FIELD_NUMBER: _ClassVar[int]
    CONFLICT_INDEX_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    term: int
    request_term: int
    success: bool
    match_index: int
    rejected_index: int
    conflict_term: int
    conflict_index: int
    sequence: int
    def __init__(self, term: _Optional[int] = ..., request_term: _Optional[int] = ..., success: _Optional[bool] = ..., match_index: _Optional[int] = ..., rejected_index: _Optional[int] = ..., conflict_term: _Optional[int] = ..., conflict_index: _Optional[int] = ..., sequence: _Optional[int] = ...) -> None: ...
