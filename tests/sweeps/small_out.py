"""Run `sweep` with its results on a file system of BYTES bytes that only this process sees. Needs root.

python small_out.py FOLDER BYTES COMMAND ...      as `sweep COMMAND ... --out FOLDER`
"""

from __future__ import annotations

import sys
from pathlib import Path

from sweeps.cli import main
from tests.sweeps.full_disk import mount_small

if __name__ == "__main__":
    _, folder, size, *arguments = sys.argv
    mount_small(Path(folder), int(size))
    sys.argv = ["sweep", *arguments, "--out", folder]
    main()
