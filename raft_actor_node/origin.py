"""Where this process imports a package from, and a digest of its source, to compare the code of two processes.

This module imports only the standard library and keeps no state. The driver sends its functions by value to processes
that may have other code of this project, or none.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from pathlib import Path
from typing import NamedTuple

_SUFFIXES = (".py", ".yaml")


class Origin(NamedTuple):
    """What a process imports under the name of a package."""

    digest: str
    """Twelve hexadecimal digits: equal for equal source; empty if the package is missing."""
    place: str
    """Folder of the package, or file of a plain module; empty if it is missing."""

    def __str__(self) -> str:
        return f"{self.digest} in {self.place}" if self.place else "none"


def origin(package: str) -> Origin:
    """Return what this process has imported, or would import, under a name. The digest is of the source on disk now."""
    module = sys.modules.get(package)
    spec = importlib.util.find_spec(package) if module is None else module.__spec__
    if spec is None:
        return Origin("", "")
    places = [Path(place) for place in spec.submodule_search_locations or () if Path(place).is_dir()]
    if not places:
        place = Path(spec.origin or "")
        return Origin(digest_of([place]), str(place))
    return Origin(digest_of(places), str(places[0]))


def origins(packages: tuple[str, ...]) -> list[tuple[str, str, str]]:
    """Return (package, digest, place) of each package, as plain data: the caller may not have this module."""
    return [(package, *origin(package)) for package in packages]


def digest_of(places: list[Path]) -> str:
    """Return twelve hexadecimal digits over the source files in folders, or over a single file."""
    digest = hashlib.sha256()
    for place in places:
        for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if path.suffix in _SUFFIXES:
                content = path.read_bytes()
                name = path.relative_to(place).as_posix()
                digest.update(f"{name}\n{len(content)}\n".encode() + content)
    return digest.hexdigest()[:12]
