"""manifest.json: everything needed to repeat the measurements of a run."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orchestration import host
from raft_actor_node.runtime import disk

FORMAT = 2
"""Version of the run directory format: the field `format` of the manifest, which manifests of version 1 lack.

This program shows and judges runs of all versions up to this. It resumes only runs of this version."""


def now() -> str:
    """Return the local time with its UTC offset, in ISO 8601 with milliseconds."""
    return datetime.datetime.now().astimezone().isoformat(timespec="milliseconds")


def manifest(*, seed: int, command_line: Sequence[str], spec_name: str, storage_dir: str) -> dict[str, Any]:
    """Return what is needed besides the spec to repeat the measurements: versions, commit, machine, command line."""
    return {
        "format": FORMAT,
        "name": spec_name,
        "started": now(),
        "command_line": list(command_line),
        "seed": seed,
        "versions": host.versions(),
        "commit": commit(),
        "host": {
            "cpu": host.cpu_model(),
            "cores": os.cpu_count(),
            "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "kernel": platform.release(),
            "system": platform.system(),
        },
        "storage_dir": storage_dir,
    }


def commit() -> str | None:
    """Return the commit of the source tree of this program, with `+` if it has changes; None outside a source tree."""
    root = Path(__file__).parents[2]

    def git(*words: str) -> str:
        command = ["git", "-C", str(root), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")) != root.resolve():
            return None
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def file_system(path: Path) -> str | None:
    """Return type and device of the file system of a path, even if the path is gone: `ext4 on /dev/sda1`.

    None if it cannot be determined.
    """
    found = disk.file_system(path)
    return " on ".join(found) if found is not None else None
