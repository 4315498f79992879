"""A strict YAML parser for specs written by hand: it records the line of every value and guesses nothing.

Scalars follow YAML 1.2: `off` is text and `1e3` is a number. Duplicate keys, keys that are not text, and aliases
are errors. parameters.py decides what the values mean.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import yaml

from raft_actor_node.errors import ConfigError

_UNWRITABLE = re.compile("[\ud800-\udfff]")
"""Half of a surrogate pair, which UTF-8 cannot encode."""
Path = tuple[str | int, ...]
"""The location of a value: the keys and positions that lead to it."""


class Document(NamedTuple):
    """A parsed document, and the line on which each of its values begins."""

    data: Any
    lines: dict[Path, int]


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the scalars of YAML 1.2, and without aliases: they can expand without bound."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - as the base class declares it

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.get_mark()
            raise yaml.composer.ComposerError(None, None, "aliases are not supported", mark)
        return super().compose_node(parent, index)


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(?:0|[1-9][0-9_]*)", list("-+0123456789")),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan", list("-+.0123456789")),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first)


def parse_yaml(text: str, source: str) -> Document:
    """Parse one YAML document.

    Raises ConfigError with one line that begins with `source` and the line number.
    """
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            lines: dict[Path, int] = {}
            if node is None:
                return Document(None, lines)
            _scan(node, (), node.start_mark.line + 1, lines, source)
            return Document(loader.construct_document(node), lines)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{source}{line}: not YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{source}: not YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ConfigError(f"{source}: not YAML: nested too deeply") from None
    except ValueError as error:
        raise ConfigError(f"{source}: not YAML: {error}") from None


def _scan(node: yaml.Node, path: Path, line: int, lines: dict[Path, int], source: str) -> None:
    """Record the line of every value below `node`; refuse duplicate keys and keys that are not text."""
    lines[path] = line
    if isinstance(node, yaml.ScalarNode) and (bad := _UNWRITABLE.search(node.value)):
        raise ConfigError(f"{source}:{line}: {dotted(path)}: {bad[0]!r} is half of a surrogate pair, not a character")
    if isinstance(node, yaml.SequenceNode):
        for position, item in enumerate(node.value):
            _scan(item, (*path, position), item.start_mark.line + 1, lines, source)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            key_line = key.start_mark.line + 1
            if key.tag != "tag:yaml.org,2002:str":
                shown = key.value if isinstance(key, yaml.ScalarNode) else "a list or mapping"
                raise ConfigError(f"{source}:{key_line}: {dotted((*path, str(shown)))}: a key must be text")
            child = (*path, key.value)
            if child in lines:
                raise ConfigError(f"{source}:{key_line}: {dotted(child)}: appears twice, first on line {lines[child]}")
            _scan(value, child, key_line, lines, source)


def dotted(path: Path) -> str:
    """Return a path as it is written in messages: `axes.cluster.nodes[2]`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def split_values(text: str) -> list[str]:
    """Split at the commas outside brackets and quotes: `3,{a: 1, b: 2}` has two values."""
    parts, depth, quote, begin = [], 0, "", 0
    for position, character in enumerate(text):
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character in "[{":
            depth += 1
        elif character in "]}":
            depth -= 1
        elif character == "," and depth == 0:
            parts.append(text[begin:position])
            begin = position + 1
    parts.append(text[begin:])
    return [part.strip() for part in parts]
