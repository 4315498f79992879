"""manifest.json: what is needed to repeat the numbers of a run."""

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
"""Version of the contents of a run directory: `format` in the manifest.

Manifests of version 1 lack it. Runs of every version up to this one are shown and judged; only those of this version
are resumed.
"""


def now() -> str:
    return datetime.datetime.now().astimezone().isoformat(timespec="milliseconds")


def manifest(*, seed: int, command_line: Sequence[str], spec_name: str, storage_dir: str) -> dict[str, Any]:
    """Return what is needed to repeat the numbers, besides the spec: versions, commit, machine, command line."""
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
    """Return the commit of the source tree this runs from, with `+` when it has changes; None outside of a tree."""
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
    """Return type and device of the file system that holds a path, or held it: `ext4 on /dev/sda1`; None if unknown."""
    found = disk.file_system(path)
    return " on ".join(found) if found is not None else None
