"""The promises of the write-ahead log to its caller: round trips, the directory, refused arguments, cost."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from raft_actor_node.errors import ConfigError, DataCorrupt, DirectoryLocked, DiskError, InvariantViolated
from raft_actor_node.runtime.disk import Disk, memory_file_system
from raft_actor_node.runtime.wal import LOG_NAME, Recovered, Wal

ROOT = Path(__file__).parents[2]
MEMBERS = ["n1", "n2", "n3"]


def open_wal(directory: Path, *, bootstrap: bool = False, **options: Any) -> tuple[Wal, Recovered]:
    defaults: dict[str, Any] = {"cluster_id": "c", "node_id": "n1", "members": MEMBERS, "allow_memory_fs": True}
    return Wal.open(directory, bootstrap=bootstrap, **(defaults | options))


@contextmanager
def opened(directory: Path, **options: Any) -> Iterator[tuple[Wal, Recovered]]:
    wal, recovered = open_wal(directory, **options)
    try:
        yield wal, recovered
    finally:
        wal.close()


def entries(recovered: Recovered) -> list[tuple[int, bytes]]:
    return list(zip(recovered.terms, recovered.payloads, strict=True))


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def make_member(directory: Path, **options: Any) -> None:
    """A closed directory with three entries of term 2, two of them committed, and a vote."""
    with opened(directory, bootstrap=True, **options) as (wal, _):
        wal.save_hard_state(2, "n3")
        wal.append(1, [1, 2, 2], [b"", b"two", b"three"], 2)


# ------------------------------------------------------------------------------ round trips


def test_what_was_written_is_recovered_after_a_clean_close_and_after_a_crash(tmp_path: Path) -> None:
    crashed, _ = open_wal(tmp_path / "n1", bootstrap=True)
    crashed.save_hard_state(2, "n3")
    crashed.append(1, [1, 2], [b"", b"\x00\xff" * 100], 1)
    shutil.copytree(tmp_path / "n1", tmp_path / "copy")
    crashed.close()
    for name in ("n1", "copy"):
        with opened(tmp_path / name) as (_, recovered):
            assert (recovered.current_term, recovered.voted_for) == (2, "n3")
            assert entries(recovered) == [(1, b""), (2, b"\x00\xff" * 100)]
            assert recovered.commit_index == 1
            assert recovered.warnings == []


def test_append_replaces_the_suffix_from_its_first_index(tmp_path: Path) -> None:
    with opened(tmp_path / "n1", bootstrap=True) as (wal, _):
        wal.save_hard_state(3, None)
        wal.append(1, [1] * 5, [b"a", b"b", b"c", b"d", b"e"], 2)
        wal.append(3, [3], [b"C"], 2)
        wal.append(4, [3], [b"D"], 3)
        wal.append(5, [], [], 4)
    with opened(tmp_path / "n1") as (wal, recovered):
        assert entries(recovered) == [(1, b"a"), (1, b"b"), (3, b"C"), (3, b"D")]
        assert recovered.commit_index == 4
        wal.append(5, [3], [b"E"], 4)
    with opened(tmp_path / "n1") as (_, recovered):
        assert recovered.payloads == [b"a", b"b", b"C", b"D", b"E"]


def test_opening_a_healthy_directory_changes_nothing(tmp_path: Path) -> None:
    make_member(tmp_path / "n1")
    before = contents(tmp_path / "n1")
    assert set(before) == {"segment-00000001.wal", "hard-state-a", "hard-state-b", "durable-mark"}
    for bootstrap in (False, True):
        with opened(tmp_path / "n1", bootstrap=bootstrap) as (_, recovered):
            assert recovered.payloads == [b"", b"two", b"three"]
        assert contents(tmp_path / "n1") == before


# ------------------------------------------------------------------------------ the directory


@pytest.mark.parametrize("prepare", [lambda _: None, Path.mkdir], ids=["missing", "empty"])
def test_without_bootstrap_no_directory_comes_back_empty(tmp_path: Path, prepare: Any) -> None:
    prepare(tmp_path / "n1")
    existed = (tmp_path / "n1").exists()
    with pytest.raises(DataCorrupt, match="must not come back empty"):
        open_wal(tmp_path / "n1")
    assert (tmp_path / "n1").exists() == existed
    assert not existed or contents(tmp_path / "n1") == {}


def test_bootstrap_creates_missing_parents(tmp_path: Path) -> None:
    with opened(tmp_path / "a" / "b" / "n1", bootstrap=True) as (_, recovered):
        assert (recovered.current_term, recovered.voted_for, entries(recovered)) == (0, None, [])
        assert recovered.warnings == []


@pytest.mark.parametrize("other", [{"cluster_id": "other"}, {"node_id": "n2"}])
def test_the_directory_of_another_node_is_refused_and_left_alone(tmp_path: Path, other: dict[str, str]) -> None:
    make_member(tmp_path / "n1")
    before = contents(tmp_path / "n1")
    with pytest.raises(DataCorrupt, match=r"node 'n1' of cluster 'c'"):
        open_wal(tmp_path / "n1", bootstrap=True, **other)
    assert contents(tmp_path / "n1") == before


@pytest.mark.parametrize("members", [["n1"], ["n1", "n2"], ["n1", "n2", "n3", "n4"], ["n1", "n2", "n9"]])
def test_the_directory_of_a_member_of_another_list_is_refused_and_left_alone(
    tmp_path: Path, members: list[str]
) -> None:
    """The node might lead alone, or vote in a cluster that counts other quorums."""
    make_member(tmp_path / "n1")
    before = contents(tmp_path / "n1")
    with pytest.raises(DataCorrupt) as caught:
        open_wal(tmp_path / "n1", bootstrap=True, members=members)
    assert f"members: ['n1', 'n2', 'n3'] in the log, {members} in the configuration; give" in str(caught.value)
    assert contents(tmp_path / "n1") == before


def test_the_order_of_members_does_not_matter(tmp_path: Path) -> None:
    make_member(tmp_path / "n1", members=["n2", "n3", "n1"])
    before = contents(tmp_path / "n1")
    with opened(tmp_path / "n1", members=["n3", "n2", "n1"]) as (_, recovered):
        assert recovered.payloads == [b"", b"two", b"three"]
    assert contents(tmp_path / "n1") == before


@pytest.mark.parametrize("kept", [["hard-state-a"], ["hard-state-b", "durable-mark"], ["durable-mark"]])
def test_a_member_that_lost_its_log_is_refused_even_with_bootstrap(tmp_path: Path, kept: list[str]) -> None:
    make_member(tmp_path / "n1")
    for path in (tmp_path / "n1").iterdir():
        if path.name not in kept:
            path.unlink()
    before = contents(tmp_path / "n1")
    with pytest.raises(DataCorrupt, match="but no log"):
        open_wal(tmp_path / "n1", bootstrap=True)
    assert contents(tmp_path / "n1") == before


def test_an_older_copy_of_the_log_is_refused(tmp_path: Path) -> None:
    make_member(tmp_path / "n1")
    shutil.copy(tmp_path / "n1" / LOG_NAME, tmp_path / "older")
    with opened(tmp_path / "n1") as (wal, _):
        wal.append(4, [2], [b"four"], 2)
    shutil.copy(tmp_path / "older", tmp_path / "n1" / LOG_NAME)
    with pytest.raises(DataCorrupt, match="was on disk up to"):
        open_wal(tmp_path / "n1")


def test_a_log_with_a_term_above_the_hard_state_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path / "n1", bootstrap=True) as (wal, _):
        wal.save_hard_state(1, None)
        old = contents(tmp_path / "n1")
        wal.save_hard_state(2, None)
        wal.append(1, [2], [b"x"], 0)
    for name in ("hard-state-a", "hard-state-b"):
        (tmp_path / "n1" / name).write_bytes(old[name])
    before = contents(tmp_path / "n1")
    with pytest.raises(DataCorrupt, match="last entry has term 2, but the hard state has term 1"):
        open_wal(tmp_path / "n1")
    assert contents(tmp_path / "n1") == before


@pytest.mark.parametrize("below", [".", "deep/n1"])
def test_a_file_in_place_of_a_directory_is_a_configuration_error(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"storage\.dir: .* is not a directory"):
        open_wal(tmp_path / "file" / below, bootstrap=True)


def test_a_memory_file_system_is_refused_unless_allowed() -> None:
    shared = Path("/dev/shm")
    if not shared.is_dir() or memory_file_system(shared) is None:
        pytest.skip("no memory file system at /dev/shm")
    directory = Path(tempfile.mkdtemp(dir=shared)) / "deep" / "n1"
    try:
        with pytest.raises(ConfigError, match=r"storage\.dir: .* memory file system .*allow_memory_fs"):
            open_wal(directory, bootstrap=True, allow_memory_fs=False)
        assert not directory.parent.exists()
        with opened(directory, bootstrap=True):
            assert directory.is_dir()
    finally:
        shutil.rmtree(directory.parents[1])


# ------------------------------------------------------------------------------ the lock


OPEN_AND_HOLD = """
import sys
from pathlib import Path
from raft_actor_node.errors import RaftLabError
from raft_actor_node.runtime.wal import Wal
try:
    options = {"cluster_id": "c", "node_id": "n1", "members": ["n1", "n2", "n3"]}
    wal, _ = Wal.open(Path(sys.argv[1]), **options, bootstrap=True, allow_memory_fs=True)
except RaftLabError as error:
    print(error)
    sys.exit(error.exit_code)
wal.save_hard_state(7, "n2")
print("open", flush=True)
sys.stdin.read()
"""


def start_second_process(directory: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", OPEN_AND_HOLD, str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def test_a_second_process_leaves_at_once_and_touches_nothing(tmp_path: Path) -> None:
    make_member(tmp_path / "n1")
    with opened(tmp_path / "n1"):
        before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in (tmp_path / "n1").iterdir()}
        second = start_second_process(tmp_path / "n1")
        output, _ = second.communicate(timeout=30)
        assert second.returncode == DirectoryLocked.exit_code
        assert "another process holds this directory" in output
        after = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in (tmp_path / "n1").iterdir()}
        assert after == before


def test_the_lock_is_refused_at_once_and_ends_with_its_holder(tmp_path: Path) -> None:
    holder = start_second_process(tmp_path / "n1")
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        start = time.monotonic()
        with pytest.raises(DirectoryLocked):
            open_wal(tmp_path / "n1")
        assert time.monotonic() - start < 10.0
        holder.kill()
        holder.wait(timeout=30)
        with opened(tmp_path / "n1") as (_, recovered):
            assert (recovered.current_term, recovered.voted_for) == (7, "n2")
    finally:
        holder.kill()
        holder.communicate()


def test_a_failed_open_releases_the_lock(tmp_path: Path) -> None:
    make_member(tmp_path / "n1")
    with pytest.raises(DataCorrupt):
        open_wal(tmp_path / "n1", node_id="n2")
    with opened(tmp_path / "n1") as (_, recovered):
        assert len(recovered.terms) == 3


# ------------------------------------------------------------------------------ arguments that only a bug can give


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((5, [2], [b""], 2), InvariantViolated, "first index 5, but the log ends at 3"),
        ((0, [2], [b""], 2), InvariantViolated, "first index 0"),
        ((2, [2], [b""], 2), InvariantViolated, "committed up to 2"),
        ((4, [2], [b""], 5), InvariantViolated, "commit index 5 is beyond the last index 4"),
        ((3, [], [], 3), InvariantViolated, "commit index 3 is beyond the last index 2"),
        ((4, [3], [b""], 2), InvariantViolated, "term 3 is above the saved term 2"),
        ((4, [2, 2], [b""], 2), ValueError, "2 terms, but 1 payloads"),
    ],
)
def test_append_refuses_what_would_break_the_log(
    tmp_path: Path, arguments: tuple[Any, ...], error: type[Exception], message: str
) -> None:
    make_member(tmp_path / "n1")
    before = contents(tmp_path / "n1")
    with opened(tmp_path / "n1") as (wal, _):
        with pytest.raises(error, match=message):
            wal.append(*arguments)
        assert contents(tmp_path / "n1") == before
        wal.append(4, [2], [b"four"], 3)
    with opened(tmp_path / "n1") as (_, recovered):
        assert recovered.payloads == [b"", b"two", b"three", b"four"]
        assert recovered.commit_index == 3


@pytest.mark.parametrize("state", [(1, None), (2, "n1"), (2, None)])
def test_hard_state_never_goes_back_and_votes_once_per_term(tmp_path: Path, state: tuple[int, str | None]) -> None:
    make_member(tmp_path / "n1")
    before = contents(tmp_path / "n1")
    with opened(tmp_path / "n1") as (wal, _), pytest.raises(InvariantViolated, match="cannot follow term 2"):
        wal.save_hard_state(*state)
    assert contents(tmp_path / "n1") == before


def test_an_older_commit_index_does_not_lower_the_hint(tmp_path: Path) -> None:
    make_member(tmp_path / "n1")
    with opened(tmp_path / "n1") as (wal, _):
        wal.append(4, [2], [b"four"], 0)
    with opened(tmp_path / "n1") as (_, recovered):
        assert recovered.commit_index == 2


def test_a_closed_log_refuses_every_call(tmp_path: Path) -> None:
    wal, _ = open_wal(tmp_path / "n1", bootstrap=True)
    wal.close()
    wal.close()
    with pytest.raises(DiskError, match="is closed"):
        wal.append(1, [], [], 0)
    with pytest.raises(DiskError, match="is closed"):
        wal.save_hard_state(1, None)


# ------------------------------------------------------------------------------ cost


def test_each_append_costs_one_fsync_and_each_hard_state_two(tmp_path: Path) -> None:
    latencies_ns: list[int] = []
    with opened(tmp_path / "n1", bootstrap=True) as (wal, _):
        wal.on_fsync = latencies_ns.append
        wal.save_hard_state(1, "n1")
        assert len(latencies_ns) == 2
        wal.save_hard_state(1, "n1")
        assert len(latencies_ns) == 2, "nothing changed, so nothing had to be written"
        wal.append(1, [1] * 1000, [b"x"] * 1000, 0)
        assert len(latencies_ns) == 3
    assert min(latencies_ns) > 0


def test_without_fsync_nothing_is_synced(tmp_path: Path) -> None:
    latencies_ns: list[int] = []
    with opened(tmp_path / "n1", bootstrap=True, fsync=False) as (wal, _):
        wal.on_fsync = latencies_ns.append
        wal.save_hard_state(1, "n1")
        wal.append(1, [1], [b"x"], 0)
    assert latencies_ns == []


def test_a_long_log_is_recovered_whole(tmp_path: Path) -> None:
    with opened(tmp_path / "n1", bootstrap=True, fsync=False) as (wal, _):
        wal.save_hard_state(1, None)
        for first_index in range(1, 100_000, 100):
            wal.append(first_index, [1] * 100, [b"%0100d" % i for i in range(100)], 0)
    with opened(tmp_path / "n1") as (_, recovered):
        assert len(recovered.payloads) == 100_000
        assert recovered.payloads[-1] == b"%0100d" % 99


def test_room_is_kept_after_a_kill_and_given_back_at_close(tmp_path: Path) -> None:
    """Small appends do not change the file's size; zeros behind the log are no tear, but other bytes are."""
    options: dict[str, Any] = {"cluster_id": "c", "node_id": "n1", "members": MEMBERS, "bootstrap": True}
    wal, _ = Wal.open(tmp_path / "n1", **options)
    wal.save_hard_state(1, None)
    wal.append(1, [1], [b"one"], 0)
    log = tmp_path / "n1" / LOG_NAME
    size = log.stat().st_size
    assert size > Disk.room_bytes
    wal.append(2, [1], [b"two"], 0)
    assert log.stat().st_size == size
    wal._release("was killed")  # as after SIGKILL, nothing is given back

    wal, recovered = Wal.open(tmp_path / "n1", **options)
    assert (recovered.payloads, recovered.warnings) == ([b"one", b"two"], [])
    assert log.stat().st_size == size
    wal.append(3, [1], [b"three"], 0)
    assert log.stat().st_size == size
    wal._release("was killed")

    with log.open("r+b") as file:
        file.seek(size - 1)
        file.write(b"x")
    wal, recovered = Wal.open(tmp_path / "n1", **options)
    assert recovered.payloads == [b"one", b"two", b"three"]
    assert "cut off" in recovered.warnings[0]
    wal.append(4, [1], [bytes(Disk.room_bytes)], 0)
    assert log.stat().st_size < 2 * Disk.room_bytes, "a large unit asks for no room"
    wal.close()
    wal, recovered = Wal.open(tmp_path / "n1", **options)
    assert (len(recovered.payloads), recovered.warnings) == (4, [])
    wal.close()
