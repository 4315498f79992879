"""The output of `sweep`: escapes in foreign text are made visible, and a closed pipe ends the program quietly."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text

from orchestration.ray_cluster.process import tail_of
from raft_actor_node.errors import ConfigError
from raft_actor_node.text import printable
from sweeps.show.terminal import SafeConsole
from sweeps.spec.document import parse_yaml

FOREIGN = "a\x1b[31m\x00\x07\x9b\ud800"
SHOWN = r"a\x1b[31m\x00\x07\x9b\ud800"


def test_printable() -> None:
    assert printable("ok ≥ ·") == "ok ≥ ·"
    assert printable(f"{FOREIGN}\n\r\u202e") == SHOWN + r"\n\r\u202e"
    assert printable("a\n\tb", keep="\n") == "a\n\\tb"


def test_foreign_text_in_lines_and_tables() -> None:
    console = SafeConsole(file=(file := io.StringIO()), force_terminal=True, color_system="standard", width=80)
    console.print(FOREIGN, style="bold red", markup=False, highlight=False, soft_wrap=True)
    table = Table("column")
    table.add_row(Text(FOREIGN))
    console.print(table)
    told = file.getvalue()
    assert told.startswith("\x1b[1;31m"), "our own colours stay"
    assert told.count(SHOWN.replace(r"\x07", "")) == 2, "rich itself takes away the bell"
    assert "\x1b[31ma" not in told
    told.encode()


def test_the_last_words_of_a_node(tmp_path: Path) -> None:
    (tmp_path / "n1.log").write_bytes(b"first\n\x1b[2Jgone \xff\n")
    assert tail_of(tmp_path / "n1.log") == "first\n\\x1b[2Jgone �"


def test_the_log_of_a_node_has_a_line_for_each_message(tmp_path: Path) -> None:
    program = (
        "import logging\nfrom raft_actor_node.__main__ import _log_to\n"
        "_log_to(None)\nlogging.getLogger('x').warning('peer %s: no', 'n9\\n\\x1b[1m12:00 CRITICAL forged')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    [line] = done.stderr.splitlines()
    assert line.endswith(r"WARNING peer n9\n\x1b[1m12:00 CRITICAL forged: no")


def test_an_error_with_a_foreign_path_is_one_line(tmp_path: Path) -> None:
    name = "h\x1b[31m\n\udcff.jsonl"
    (tmp_path / name).write_text('{"process": [], "process": 1}')
    command = [sys.executable, "-m", "sweeps.cli", "check", "--history", str(tmp_path / name)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"sweep: {tmp_path}/h\\x1b[31m")
    assert done.stderr.endswith('udcff.jsonl:1: "process" occurs twice in an object\n')


@pytest.mark.parametrize("key", ["\ud800", "a\n\x1b[31m\x00"], ids=["half", "controls"])
def test_a_violation_on_a_foreign_key_exits_with_3(tmp_path: Path, key: str) -> None:
    lines = [
        {"process": 0, "type": "invoke", "f": "get", "key": key, "value": None, "time": 1},
        {"process": 0, "type": "ok", "f": "get", "key": key, "value": 5, "time": 2},
    ]
    (tmp_path / "h.jsonl").write_text("\n".join(map(json.dumps, lines)))
    command = [sys.executable, "-m", "sweeps.cli", "check", "--history", str(tmp_path / "h.jsonl")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (3, "")
    assert done.stdout.startswith(f"violated: key {key!r}: the get of client 0 saw 5, which no client wrote")
    for text in (done.stdout, (tmp_path / "h.violation.txt").read_text(), (tmp_path / "h.violation.svg").read_text()):
        assert all(line.isprintable() for line in text.split("\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'name: x\nbase: {cluster: {command: ["\\ud800"]}}',
            "f.yaml:2: base.cluster.command[0]: '\\ud800' is half of a",
        ),
        ("name: " + "7" * 5000, "f.yaml: not YAML: Exceeds the limit"),
    ],
)
def test_a_spec_that_no_file_could_hold_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_yaml(text, "f.yaml")
    assert str(refused.value).startswith(message)


ONE_CELL = ["quick", "--target", "sim", "-o", "cluster.nodes=3", "-o", "chaos=none", "-o", "phases.measure=1s"]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("results")
    command = [sys.executable, "-m", "sweeps.cli", "run", *ONE_CELL, "--out", str(out)]
    subprocess.run(command, stdout=subprocess.DEVNULL, timeout=120, check=True)
    return out


@pytest.mark.parametrize(
    "arguments",
    [["presets"], ["schema"], ["plan", "quick"], ["show"], ["check"], ["history"], ["clean", "--dry-run"], ["--help"],
     ["simulate", "--seeds", "1", "--story"], ["run", *ONE_CELL], ["resume"]],
    ids=lambda arguments: arguments[0],
)  # fmt: skip
def test_a_reader_that_is_gone_ends_it_quietly(stored: Path, tmp_path: Path, arguments: list[str]) -> None:
    """Other programs do the same; a sweep that is running ends in order."""
    if arguments[0] not in ("presets", "schema", "clean", "--help"):
        new = arguments[0] in ("run", "simulate")
        arguments = [*arguments, "--out", str(tmp_path if new else stored)]
    process = subprocess.Popen(
        [sys.executable, "-m", "sweeps.cli", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.close()
    _, errors = process.communicate(timeout=120)
    assert errors == ""
    assert process.returncode == 141
