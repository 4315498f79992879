"""Output files that the user names: a regular file is replaced in one step; links, pipes and devices stay."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from chaos.history import History, Operation
from raft_actor_node.files import replacing
from sweeps import cli

HISTORY = History([Operation(0, "get", 1, observed=(5,), invoke_ns=1, return_ns=2)])


def write(path: Path, text: str = "new") -> None:
    with replacing(path) as file:
        file.write(text)


def test_a_file_is_replaced_in_one_step(tmp_path: Path) -> None:
    file = tmp_path / "file"
    write(file, "old")
    with file.open() as reader:
        write(file)
        assert reader.read() == "old"
    assert file.read_text() == "new"
    assert list(tmp_path.iterdir()) == [file]


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    file = tmp_path / "file"
    write(file, "old")
    with pytest.raises(RuntimeError), replacing(file) as partial:
        partial.write("half of it")
        raise RuntimeError
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("there", [True, False], ids=["file", "nothing"])
def test_a_symbolic_link_stays(tmp_path: Path, there: bool) -> None:
    """The target of the link is replaced, or created."""
    (tmp_path / "folder").mkdir()
    target, link = tmp_path / "folder" / "target", tmp_path / "link"
    if there:
        target.touch()
    link.symlink_to("folder/target")
    write(link)
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert not target.is_symlink()


def test_a_named_pipe_stays_and_its_reader_gets_all(tmp_path: Path) -> None:
    os.mkfifo(pipe := tmp_path / "pipe")
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()), daemon=True)
    reader.start()
    HISTORY.write_jsonl(pipe)
    reader.join(30)
    assert pipe.is_fifo()
    HISTORY.write_jsonl(tmp_path / "file")
    assert read == [(tmp_path / "file").read_text()]


def test_a_pipe_of_this_process_is_written_to() -> None:
    """As in `--output /dev/stdout | other checker`, or with process substitution."""
    read_fd, write_fd = os.pipe()
    with os.fdopen(read_fd) as reader:
        write(Path(f"/proc/self/fd/{write_fd}"))
        os.close(write_fd)
        assert reader.read() == "new"


def test_a_device_stays() -> None:
    """The device is a pseudoterminal that only this process uses."""
    ours, theirs = os.openpty()
    try:
        device = Path(os.ttyname(theirs))
        before = device.stat().st_rdev
        write(device)
        assert os.read(ours, 10) == b"new"
        assert (device.is_char_device(), device.stat().st_rdev) == (True, before)
    finally:
        os.close(ours)
        os.close(theirs)


def test_a_file_without_a_name_is_written_to(tmp_path: Path) -> None:
    """The file was deleted while open; a new file of the same name would be a different file."""
    file = tmp_path / "file"
    with file.open("w+") as deleted:
        file.unlink()
        write(Path(f"/proc/self/fd/{deleted.fileno()}"))
        assert deleted.read() == "new"
    assert list(tmp_path.iterdir()) == []


def test_a_history_on_a_pipe_is_refused(tmp_path: Path) -> None:
    """The judge is another process, which cannot read this pipe."""
    os.mkfifo(pipe := tmp_path / "pipe")
    read_fd, write_fd = os.pipe()
    try:
        for path in (pipe, Path(f"/proc/self/fd/{read_fd}")):
            done = CliRunner().invoke(cli.main, ["check", "--history", str(path)])
            assert done.exit_code == 2
            assert done.output.startswith(f"sweep: --history: {path}: must be a regular file, ")
    finally:
        os.close(read_fd)
        os.close(write_fd)


def test_a_history_on_a_descriptor_of_a_file_is_judged(tmp_path: Path) -> None:
    """The description of the violation is written next to the real file."""
    HISTORY.write_jsonl(tmp_path / "h.jsonl")
    with (tmp_path / "h.jsonl").open() as file:
        done = CliRunner().invoke(cli.main, ["check", "--history", f"/proc/self/fd/{file.fileno()}"])
    assert done.exit_code == 3, done.output
    assert (tmp_path / "h.violation.txt").is_file()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (".", "Is a directory; it is a folder: choose the name of a file"),
        ("none/file", "No such file or directory; its folder does not exist: make the folder, or choose another one"),
        ("file/file", "Not a directory; a part of the path is a file: choose another folder"),
        ("x" * 300, "File name too long; choose a shorter name"),
        ("circle", "Too many levels of symbolic links; its symbolic links lead in a circle: choose another name"),
    ],
)
def test_an_output_that_cannot_be_written_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, says: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "circle").symlink_to("circle")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sweeps.judge.histories.find_run", lambda *_: tmp_path)
    monkeypatch.setattr(
        "sweeps.judge.histories.read_run", lambda _: SimpleNamespace(cells=[SimpleNamespace(params={"cell": "1"})])
    )
    monkeypatch.setattr("sweeps.judge.histories.history_of", lambda _: HISTORY)
    done = CliRunner().invoke(cli.main, ["history", "--output", name])
    assert (done.exit_code, done.output) == (1, f"sweep: {name}: cannot be written: {says}\n")
