"""A node on whose host the disk is full: `python full_disk.py NODE BYTES --config FILE` is the project's own node, and
where it is NODE its log lies on a file system of that many bytes, which nobody else sees. Needs root."""

from __future__ import annotations

import ctypes
import json
import os
import sys
from pathlib import Path

from raft_actor_node.__main__ import main

_CLONE_NEWNS, _MS_REC, _MS_PRIVATE = 0x00020000, 0x4000, 1 << 18


def mount_small(folder: Path, size: int) -> None:
    """In a mount namespace of its own, so that it goes with this process."""
    libc = ctypes.CDLL(None, use_errno=True)
    folder.mkdir(parents=True, exist_ok=True)
    for done in (
        libc.unshare(_CLONE_NEWNS),
        libc.mount(b"none", b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None),
        libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", ctypes.c_ulong(0), f"size={size}".encode()),
    ):
        if done != 0:
            sys.exit(f"mount: {os.strerror(ctypes.get_errno())}")


if __name__ == "__main__":
    node_id, size = sys.argv[1], int(sys.argv[2])
    del sys.argv[1:3]
    config = json.loads(Path(sys.argv[sys.argv.index("--config") + 1]).read_text(encoding="utf-8"))
    if config["node_id"] == node_id:
        mount_small(Path(config["storage"]["dir"], node_id), size)
    sys.exit(main())
