"""Workers and nodes run the driver's code, from any folder and beside any modules of the user."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestration.host import PACKAGES, code_folder
from orchestration.ray_cluster import guard
from raft_actor_node.origin import digest_of, origin, origins
from tests.remains import short_folder

PROGRAM = Path(__file__).with_name("elsewhere.py")
pytestmark = pytest.mark.timeout(330)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A folder with another checkout, a user's script, and modules named like a dependency and one of Python's."""
    for name in ("raft_actor_node/__init__.py", "sweeps/__init__.py", "chaos.py", "click.py", "colorsys.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('raise RuntimeError("a script of the user")\n')
    return tmp_path


def run(folder: Path, way: str, **variables: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-P", str(PROGRAM), way],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(code_folder()), **variables},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def test_what_lies_in_the_folder_of_the_driver_does_not_run(elsewhere: Path) -> None:
    told = run(elsewhere, "private")
    assert "refused" not in told
    assert told["error"] is None
    assert told["there"] == told["here"]
    assert told["read"] == "v"


def test_a_connection_that_imports_other_code_is_refused_in_one_line(elsewhere: Path) -> None:
    """The program connected by itself, so its workers look for modules in the driver's folder first."""
    for name in ("click.py", "colorsys.py"):  # Ray's own processes would import these and fail
        (elsewhere / name).unlink()
    folder = str(short_folder())
    try:
        told = run(elsewhere, "borrowed", RAY_TMPDIR=folder, RAY_AUTH_MODE="disabled", RAY_USAGE_STATS_ENABLED="0")
    finally:
        guard.clean_up(folder)
    refused = told["refused"]
    ours = origin("raft_actor_node")
    assert "has other code than the driver: raft_actor_node " in refused
    assert f"{elsewhere / 'raft_actor_node'}, not {ours.digest} in {ours.place};" in refused
    assert "\n" not in refused


def test_an_origin_is_what_would_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "someones_script.py").write_text("raise RuntimeError\n")
    (tmp_path / "someones_package" / "inner").mkdir(parents=True)
    (tmp_path / "someones_package" / "inner" / "x.py").touch()
    [script, package, none] = origins(("someones_script", "someones_package", "no_such_package"))
    assert script == (
        "someones_script", digest_of([tmp_path / "someones_script.py"]), str(tmp_path / "someones_script.py")
    )  # fmt: skip
    assert package == (
        "someones_package", digest_of([tmp_path / "someones_package"]), str(tmp_path / "someones_package")
    )  # fmt: skip
    assert none == ("no_such_package", "", "")
    assert [Path(place) for _, _, place in origins(PACKAGES)] == [code_folder() / name for name in PACKAGES]
    assert str(origin("no_such_package")) == "none"
