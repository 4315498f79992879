"""The facts that a host reports."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from orchestration import host
from orchestration.host import (
    PACKAGES,
    code_digest,
    code_folder,
    cpus_available,
    fsync_times,
    lacking_calls,
    versions,
)
from tests.orchestration.poor_disk import without_locks_and_directory_fsync


def test_versions_are_those_that_are_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "DEPENDENCIES", ("grpcio", "no-such-package"))
    found = versions()
    assert list(found) == ["python", "grpcio", "no-such-package"]
    assert found["grpcio"]
    assert found["no-such-package"] is None


def test_the_digest_is_of_the_content_and_not_of_the_place(tmp_path: Path) -> None:
    here = code_digest()
    assert here == code_digest(code_folder())
    for package in PACKAGES:
        shutil.copytree(code_folder() / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    assert code_digest(tmp_path) == here


@pytest.mark.parametrize("change", ["content", "name", "preset", "new"])
def test_any_other_source_file_is_another_digest(tmp_path: Path, change: str) -> None:
    for file in ("sweeps/a.py", "chaos/b.py", "sweeps/presets/c.yaml"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("x = 1\n")
    before = code_digest(tmp_path)
    (tmp_path / "sweeps/notes.txt").write_text("not code")
    (tmp_path / "tests.py").write_text("not of a package")
    assert code_digest(tmp_path) == before
    match change:
        case "content":
            (tmp_path / "chaos/b.py").write_text("x = 2\n")
        case "name":
            (tmp_path / "chaos/b.py").rename(tmp_path / "chaos/d.py")
        case "preset":
            (tmp_path / "sweeps/presets/c.yaml").write_text("y: 1\n")
        case "new":
            (tmp_path / "orchestration").mkdir()
            (tmp_path / "orchestration/__init__.py").touch()
    assert code_digest(tmp_path) != before


ALLOWED = float(len(os.sched_getaffinity(0)))


@pytest.mark.parametrize(
    ("own", "files", "available"),
    [
        ("0::/\n", {}, ALLOWED),
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 0.5),
        ("0::/\n", {"cpu.max": "max 100000\n"}, ALLOWED),
        ("0::/a/b\n", {"a/cpu.max": "20000 100000", "a/b/cpu.max": "max 100000", "cpu.max": "30000 100000"}, 0.2),
        ("0::/not/mounted\n", {"cpu.max": "25000 100000"}, 0.25),
        ("4:cpu,cpuacct:/a\n3:memory:/b\n",
         {"cpu/a/cpu.cfs_quota_us": "10000", "cpu/a/cpu.cfs_period_us": "100000", "cpu/cpu.cfs_quota_us": "-1",
          "cpu/cpu.cfs_period_us": "100000"}, 0.1),
        (None, {}, ALLOWED),
    ],
    ids=["no quota", "of the container", "max", "the least of several", "path of the machine", "version 1", "no file"],
)  # fmt: skip
def test_a_quota_bounds_the_cpus(tmp_path: Path, own: str | None, files: dict[str, str], available: float) -> None:
    groups = tmp_path / "groups"
    for name, text in files.items():
        (groups / name).parent.mkdir(parents=True, exist_ok=True)
        (groups / name).write_text(text)
    if own is not None:
        (tmp_path / "own").write_text(own)
    assert cpus_available(groups, tmp_path / "own") == pytest.approx(available)


@pytest.mark.parametrize("wanted", [".", "new/logs"])
def test_fsyncs_are_measured_where_the_folder_is_or_would_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: str
) -> None:
    synced: list[str] = []
    fdatasync = os.fdatasync

    def spy(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink().parent))
        assert list(tmp_path.iterdir()) == [], "other hosts may share the disk: nothing is made, or taken away"
        fdatasync(descriptor)

    monkeypatch.setattr(os, "fdatasync", spy)
    monkeypatch.setattr(host, "MOST_SAMPLES", 20)
    times = fsync_times(tmp_path / wanted, 60.0)
    assert len(times) == len(synced) == 20
    assert min(times) > 0
    assert set(synced) == {str(tmp_path)}
    assert list(tmp_path.iterdir()) == []


def test_a_slow_disk_is_measured_for_as_long_as_told(tmp_path: Path) -> None:
    assert fsync_times(tmp_path, 0.0) == []


def test_a_folder_that_cannot_be_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        fsync_times(tmp_path / "file" / "logs", 1.0)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("wanted", [".", "new/logs"])
def test_a_local_disk_lacks_nothing(tmp_path: Path, wanted: str) -> None:
    assert lacking_calls(tmp_path / wanted) == []
    assert list(tmp_path.iterdir()) == []


def test_what_a_file_system_lacks_is_found_by_trying(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_locks_and_directory_fsync(monkeypatch)
    assert lacking_calls(tmp_path) == [
        "locks on directories (flock): Bad file descriptor",
        "fsync of directories: Invalid argument",
    ]
    assert list(tmp_path.iterdir()) == []
