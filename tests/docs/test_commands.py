"""Every command and every program in README and manual runs, or the page says why this test does not run it.

The blocks of a page run in order, in one scratch folder that looks to them like the root of the project. Notes are
comments above a block:

    <!-- file: my.yaml -->       the block is written to this file
    <!-- exit: 3 -->             the block's last command exits with this code
    <!-- not run: REASON -->     this test does not run the block; REASON says who does, or why it cannot run
"""

from __future__ import annotations

import ast
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT, Block, blocks, name

MANUAL = [page for page in PAGES if name(page).startswith(("README", "CONTRIBUTING", "docs/"))]
RUN_S = 170.0
"""Time limit of one block in seconds; a page usually takes a few."""
_PROGRAM = """
import ast, asyncio, inspect, sys
code = compile(sys.stdin.read(), "the page", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
main = eval(code, {"__name__": "__main__"})
if inspect.iscoroutine(main):
    asyncio.run(main)
"""


def wrong(block: Block) -> str:
    """The reason why a block is neither run nor explained; empty if it is one of them."""
    if "not run" in block.notes:
        return "" if len(block.notes["not run"]) > 10 else "needs a reason"
    if block.language in ("sh", "python"):
        return ""
    if block.language == "yaml":
        return "" if "file" in block.notes else "is neither a file nor said not to be run"
    return "" if block.language in ("text", "json", "diff") else "has no language"


@pytest.mark.parametrize("page", MANUAL, ids=name)
def test_every_block_is_run_or_says_why_not(page: Path) -> None:
    assert [f"line {block.line} {why}" for block in blocks(page) if (why := wrong(block))] == []
    assert "```" not in page.read_text(encoding="utf-8").replace("```", "", 2 * len([*blocks(page)])), "unread blocks"


@pytest.mark.parametrize("page", MANUAL, ids=name)
def test_every_target_of_make_in_it_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"(?:`|^)make ([a-z-]+)", page.read_text(encoding="utf-8"), re.MULTILINE))
    assert named - targets == set()


def run(folder: Path, block: Block) -> None:
    """Run one block, and end the processes that it starts."""
    if block.language == "python":
        command = [sys.executable, "-c", _PROGRAM]
    else:
        command = ["bash", "-euo", "pipefail", "-c", block.text]
    environment = {**os.environ, "COLUMNS": "120", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(block.text if block.language == "python" else "", timeout=RUN_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGTERM)
        output, _ = process.communicate(timeout=30)
        pytest.fail(f"line {block.line}: still runs after {RUN_S:g} s\n{output}")
    assert process.returncode == int(block.notes.get("exit", "0")), f"line {block.line}:\n{block.text}\n{output}"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", [page for page in MANUAL if any(blocks(page))], ids=name)
def test_what_stands_in_it_runs(page: Path, tmp_path: Path) -> None:
    (tmp_path / ".venv").symlink_to(Path(sys.prefix))
    for block in blocks(page):
        if "file" in block.notes:
            (tmp_path / block.notes["file"]).write_text(block.text, encoding="utf-8")
        elif block.language in ("sh", "python") and "not run" not in block.notes:
            run(tmp_path, block)


@pytest.mark.parametrize("page", MANUAL, ids=name)
def test_programs_are_python(page: Path) -> None:
    for block in blocks(page):
        if block.language == "python":
            compile(block.text, f"{name(page)}:{block.line}", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.parametrize("page", MANUAL, ids=name)
def test_files_in_it_are_used_by_a_command(page: Path) -> None:
    commands = "".join(block.text for block in blocks(page) if block.language == "sh")
    assert [file for block in blocks(page) if (file := block.notes.get("file")) and file not in commands] == []
