"""The project's own node, whose disk may be full. Needs root.

`python full_disk.py NODE BYTES --config FILE` starts the node of FILE. If that node is NODE, its log lies on a file
system of BYTES bytes that only its process sees.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from pathlib import Path

from raft_actor_node.__main__ import main

_CLONE_NEWNS, _MS_REC, _MS_PRIVATE = 0x00020000, 0x4000, 1 << 18


def mount_small(folder: Path, size: int) -> None:
    """Mount a tmpfs of `size` bytes at `folder`, in a mount namespace that ends with this process."""
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
