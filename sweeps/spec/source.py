"""A spec as it was written in a preset or a file, with the location of each value."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

from raft_actor_node.errors import ConfigError
from raft_actor_node.text import did_you_mean
from sweeps.spec.document import Document, Path, dotted, parse_yaml

PRESETS = FilePath(__file__).parent.parent / "presets"


@dataclass(frozen=True)
class Source:
    """A raw spec, with the location of each value for error messages."""

    data: dict[str, Any]
    origins: dict[Path, str] = field(default_factory=dict)
    name: str = "spec"

    def origin(self, path: Path) -> str:
        """Return where the value at `path` was written, or else the nearest value that encloses it."""
        return next((self.origins[path[:n]] for n in range(len(path), -1, -1) if path[:n] in self.origins), self.name)

    def error(self, path: Path, message: str, at: Path | None = None) -> ConfigError:
        """Return a one-line error about the value at `path`. `at`: the path that locates the value, if not `path`."""
        shown = dotted(path[1:] if path[:1] == ("base",) and len(path) > 1 else path)
        parts = (self.origin(path if at is None else at), shown, " ".join(message.split()))
        return ConfigError(": ".join(part for part in parts if part))

    def parameter_origin(self, name: str) -> Path:
        """Return the path that gives a parameter its value: the axis over it or over its section, or else the base."""
        for axis in self.data.get("axes", {}):
            if name == axis or name.startswith(f"{axis}."):
                return ("axes", axis)
        return ("base", *name.split("."))


def read_source(text: str, source: str) -> Source:
    """Parse a YAML text into a raw spec. `source` names the text in errors. Raises ConfigError."""
    document: Document = parse_yaml(text, source)
    if document.data is None:
        raise ConfigError(f"{source}: is empty; a spec is a mapping of parameters")
    if not isinstance(document.data, dict):
        raise ConfigError(f"{source}:1: must be a mapping of parameters")
    data = {key: value for key, value in document.data.items() if value is not None}
    return Source(data, {path: f"{source}:{line}" for path, line in document.lines.items()}, source)


def open_source(preset_or_file: str) -> Source:
    """Read the raw spec of a preset or a file. Raises ConfigError if there is neither, or if it cannot be read."""
    preset = PRESETS / f"{preset_or_file}.yaml"
    is_preset = re.fullmatch(r"[\w-]+", preset_or_file) is not None
    path = preset if is_preset and preset.is_file() else FilePath(preset_or_file)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        names = sorted(file.stem for file in PRESETS.glob("*.yaml"))
        kind = f"no preset and no file of this name{did_you_mean(preset_or_file, names)} (presets: {', '.join(names)})"
        raise ConfigError(f"{preset_or_file}: {kind if is_preset else 'no such file'}") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"{preset_or_file}: cannot be read: {reason}") from None
    source = read_source(text, path.name if path == preset else preset_or_file)
    source.data.setdefault("name", re.sub(r"[^\w.-]+", "-", path.stem).strip("-._") or "sweep")
    return source
