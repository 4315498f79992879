"""Where this process imports a package from, and a digest of its source: whether two processes run the same code.

It imports nothing but the standard library and keeps no state: the driver sends these functions by value to processes
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
    """What a process finds under the name of a package."""

    digest: str
    """Twelve hexadecimal digits of its source: equal where the same code runs; empty when there is none."""
    place: str
    """Its folder; the file of a module that is no package; empty when there is none."""

    def __str__(self) -> str:
        return f"{self.digest} in {self.place}" if self.place else "none"


def origin(package: str) -> Origin:
    """What this process has imported, or would import, under this name. Source that changed since is seen as it is."""
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
    """Each package, its digest and its place, as plain data: the caller may not have this module."""
    return [(package, *origin(package)) for package in packages]


def digest_of(places: list[Path]) -> str:
    """Twelve hexadecimal digits of the source files in folders, or of a single file."""
    digest = hashlib.sha256()
    for place in places:
        for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if path.suffix in _SUFFIXES:
                content = path.read_bytes()
                name = path.relative_to(place).as_posix()
                digest.update(f"{name}\n{len(content)}\n".encode() + content)
    return digest.hexdigest()[:12]
