"""Read a run directory."""

from __future__ import annotations

import csv
import gzip
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raft_actor_node.errors import ConfigError
from sweeps.analysis.events import Event
from sweeps.load.operations import Operations
from sweeps.store.events import read_events
from sweeps.store.manifest import FORMAT

_RESULT = ("status", "verdict")
"""Fields that every result.json has, whatever happened to the cell."""

Repeat = tuple[Mapping[str, Any], Mapping[str, Any]]
"""params.json and result.json of one cell."""


@dataclass(frozen=True)
class StoredCell:
    """A cell in a run directory."""

    path: Path
    params: dict[str, Any]
    result: dict[str, Any]

    def operations(self) -> Operations:
        """Return its operations as arrays. Raises FileNotFoundError if no load ran in the cell."""
        return Operations.load(self.path / "latency.npz")

    def inspection(self) -> dict[str, Any]:
        """Return what the nodes reported at the end; empty if the nodes could not be inspected."""
        found: dict[str, Any] = json.loads((self.path / "inspection.json").read_text("utf-8"))
        return found

    def events(self) -> list[Event]:
        """Return phases, faults, and trace events (only some of the commits), on the driver's clock."""
        return read_events((self.path / "events.jsonl").read_text("utf-8"))

    def traces(self) -> dict[str, list[str]]:
        """Return node id -> all lines of its trace, on its own clock."""
        files = sorted((self.path / "traces").glob("*.jsonl.gz"))
        return {
            file.name.removesuffix(".jsonl.gz"): gzip.decompress(file.read_bytes())
            .decode("utf-8", "replace")
            .splitlines()
            for file in files
        }


@dataclass(frozen=True)
class StoredRun:
    """The contents of a run directory."""

    path: Path
    manifest: dict[str, Any]
    cells: list[StoredCell]
    """The cells that ended, in the order in which they ran."""


def find_run(out: Path, run: str | None) -> Path:
    """Return the directory of a run, given as a path, `NAME`, `NAME/TIME`, or the newest. Raises ConfigError."""
    candidates = [out / "latest"] if run is None else [Path(run), out / run, out / run / "latest", Path(run) / "latest"]
    for path in candidates:
        if (path / "manifest.json").is_file():
            return path.resolve()
    if run is None:
        raise ConfigError(f"{out}: no run here; `sweep run` makes one")
    raise ConfigError(f"{run}: no run here; give the directory of a run, or NAME or NAME/TIME below {out}")


def read_run(path: Path) -> StoredRun:
    """Read a run directory, possibly one that is being written.

    Raises ConfigError when it is damaged, or of a later format.
    """
    try:
        manifest = _read_manifest(path)
        with (path / "results.csv").open(encoding="utf-8", newline="") as file:
            ids = [row["cell"] for row in csv.DictReader(file)]
        return StoredRun(path, manifest, [read_cell(path / "cells" / identity) for identity in ids])
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"{path}: is not a run that can be read: {error}") from None


def check_resumable(path: Path) -> None:
    """Raise ConfigError when a run was begun in another format: its cells would not be comparable with new ones."""
    try:
        manifest = _read_manifest(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: is not a run that can be read: {error}") from None
    if why := not_resumable(manifest):
        raise ConfigError(f"{path}: {why}")


def not_resumable(manifest: Mapping[str, Any]) -> str | None:
    """Return why this version cannot resume a run with this manifest, and what to do; None if it can."""
    if (version := manifest.get("format", 1)) == FORMAT:
        return None
    began = manifest.get("commit") or "unknown"
    return (
        f"a run of format {version}, and this version writes format {FORMAT}: resume it with the version that began it"
        f" (commit {began}), or run its spec.yaml anew"
    )


def resume_command(path: Path) -> str:
    """Return the shell command that resumes the run in a directory."""
    return f"sweep resume {shlex.quote(str(path))}"


def _read_manifest(path: Path) -> dict[str, Any]:
    manifest = _read_object(path / "manifest.json")
    version = manifest.get("format", 1)
    if not isinstance(version, int):
        raise ValueError(f"{path / 'manifest.json'}: format: must be a number, not {version!r}")
    if version > FORMAT:
        raise ConfigError(
            f"{path}: a run of format {version}; this version reads formats 1 to {FORMAT}: use the one that wrote it"
        )
    return manifest


def read_cell(folder: Path) -> StoredCell:
    """Return one cell from its folder. Raises OSError and ValueError."""
    params = _read_object(folder / "params.json", "cell", "axes", "repeat", "parameters")
    result = _read_object(path := folder / "result.json", *_RESULT)
    if not isinstance(result["verdict"], dict) or "verdict" not in result["verdict"]:
        raise ValueError(f"{path}: verdict: must be an object with a verdict")
    return StoredCell(folder, params, result)


def _read_object(path: Path, *names: str) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises OSError, or ValueError if the file is not a JSON object with these names. Both errors name the file.
    """
    try:
        found = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path}: must be a JSON object, not {type(found).__name__}")
    if missing := [name for name in names if name not in found]:
        raise ValueError(f"{path}: {', '.join(missing)} missing")
    return found
