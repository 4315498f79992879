"""Write the reference of the manual from the code: `make reference`.

One function writes each page of docs/reference/, from declarations and docstrings of the code. docs/generate/stored.py
describes what only stored files contain (keys of result.json, files of a run). tests/docs/test_reference.py fails if a
page is out of date, or if a real run contains something that no page describes.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import itertools
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel

from chaos.checks.registry import CHECKS
from chaos.faults import FAULTS, grammar
from docs.generate.stored import CSV_COLUMNS, FILES, RESULT_KEYS
from orchestration.targets import TARGETS, Capabilities
from raft_actor_node.config import NodeConfig
from raft_actor_node.errors import RaftLabError
from sweeps import cli
from sweeps.judge import exit_codes
from sweeps.load import operations
from sweeps.spec.metrics import METRICS
from sweeps.spec.parameters import Parameters, Spec

DOCS = Path(__file__).parents[1]
FOLDER = DOCS / "reference"
ROOT = DOCS.parent

# ------------------------------------------------------------------------------ parameters

UNITS = {
    "load.rate": "operations/s",
    "sim.stalls_per_s": "1/s",
    "sim.clock_rate": "s/s",
    "load.mix": "share of operations",
}
"""Units of numbers that are neither durations, nor sizes, nor shares, nor counts."""
PLACES = {"PerHost": "`{per_host: K}`", "OnHosts": "`{hosts: [...]}`"}
"""Models that the table shows in the form in which they are written."""


def parameters_page() -> str:
    """Every parameter of a spec and of a node: type, default, unit, meaning."""
    sections = [name for name, info in Parameters.model_fields.items() if _is_model(info.annotation)]
    parts = [
        "# Parameters",
        (
            "A parameter of a cell is set in `base`, in `axes`, in a case, or with `-o KEY=VALUE`, by its dotted name. "
            "`sweep schema` prints a JSON schema of all parameters, for editors."
        ),
        (
            "A *duration* is a number with its unit: `us`, `ms`, `s`, `m` or `h`. A *range* is two durations: "
            "`150ms-300ms`. A *size* is a number of bytes, or a number with `B`, `KiB`, `MiB` or `GiB`. "
            "A *share* is a number from 0 to 1."
        ),
        "Sections: " + ", ".join(f"[{name}](#{name})" for name in ("cell", *sections, "spec", "node")) + ".",
        "## cell",
        *_table(Parameters, "", leaving_out=sections),
    ]
    for name in sections:
        model = Parameters.model_fields[name].annotation
        assert isinstance(model, type)
        parts += [f"## {name}", _first_paragraph(inspect.getdoc(model) or ""), *_table(model, f"{name}.")]
    parts += [
        "## spec",
        "Keys of a spec other than the parameters of its cells.",
        *_table(Spec, "", leaving_out=("base",)),
        "## node",
        (
            "Keys of the configuration file of a node process, in addition to the sections "
            "[raft](#raft), [storage](#storage), [limits](#limits) and [transport](#transport)."
        ),
        *_table(NodeConfig, "", leaving_out=("raft", "storage", "limits", "transport")),
    ]
    return _page(parts)


def _is_model(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel) and "root" not in annotation.model_fields


def _table(model: type[BaseModel], prefix: str, leaving_out: Iterable[str] = ()) -> list[str]:
    """Return the table of a section, then the meanings that are too long for the table."""
    schema = model.model_json_schema()
    meanings = attribute_docstrings(model)
    rows, details = [], []
    for name, info in model.model_fields.items():
        if name in leaving_out:
            continue
        kind, unit = _type_and_unit(prefix + name, schema["properties"][name])
        default = "needed" if info.is_required() else _default(model, name)
        first, _, more = meanings.get(name, "").partition("\n\n")
        meaning = " ".join(first.split()) + (" See below." if more else "")
        if more:
            details.append(f"`{prefix}{name}`:\n\n```text\n{textwrap.dedent(more)}\n```")
        rows.append((f"`{prefix}{name}`", kind, default, unit, meaning))
    return [table(("parameter", "type", "default", "unit", "meaning"), rows), *details]


def _default(model: type[BaseModel], name: str) -> str:
    written = model.model_construct().model_dump(mode="json", include={name})[name]
    if isinstance(written, dict):
        written = {key: value for key, value in written.items() if value}
    text = {None: "none", True: "true", False: "false"}.get(written, written) if _is_plain(written) else written
    return f"`{text}`" if text not in ("", [], {}) else "empty"


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, bool)


def _type_and_unit(name: str, schema: Mapping[str, Any]) -> tuple[str, str]:
    options = [option for option in schema.get("anyOf", [schema]) if option.get("type") != "null"]
    pattern = "".join(option.get("pattern", "") for option in options)
    if "us|ms" in pattern:
        kind = "range" if pattern.count("us|ms") == 2 else "`off` or duration" if "off" in pattern else "duration"
        return kind, "in the value"
    if "KiB" in pattern:
        return "size", "bytes"
    kinds, unit = [], UNITS.get(name, "")
    for option in options:
        if "enum" in option:
            kinds += [f"`{value}`" for value in option["enum"]]
        elif "$ref" in option:
            kinds.append(PLACES.get(option["$ref"].rsplit("/", 1)[-1], "mapping"))
        elif option.get("type") == "number" and option.get("maximum") == 1.0:
            kinds.append("number")
            unit = unit or "share"
        elif option.get("type") in ("integer", "number"):
            kinds.append(option["type"] + _bounds(option))
        else:
            words = {"string": "text", "array": "list", "object": "mapping", "boolean": "`true`, `false`"}
            kinds.append(words.get(option.get("type", "object"), "see below"))
    return ", ".join(dict.fromkeys(kinds)), unit


def _bounds(option: Mapping[str, Any]) -> str:
    low, high = option.get("minimum", option.get("exclusiveMinimum")), option.get("maximum")
    if low is None and high is None:
        return ""
    return f" from {low:g}" + ("" if high is None else f" to {high:,}")


@functools.cache
def attribute_docstrings(model: type) -> Mapping[str, str]:
    """Return the docstring below each field of a model or dataclass and of its bases, by name."""
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if base in (object, BaseModel):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        assert isinstance(body, ast.ClassDef)
        for each, after in itertools.pairwise(body.body):
            match each, after:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    found[name] = inspect.cleandoc(text)
    return found


# ------------------------------------------------------------------------------ chaos


def chaos_page() -> str:
    """The grammar of `chaos:`, and every kind of fault with its fields."""
    parts = [
        "# Chaos",
        (
            "The value of `chaos:` in a spec. `.venv/bin/python -m chaos.faults` prints this grammar. "
            "How to add a fault: [add a fault](../how-to/add-a-fault.md)."
        ),
        "## Grammar",
        f"```text\n{grammar().rstrip()}\n```",
        "## Kinds of fault",
        (
            "*Ends a leadership*: whether a leader that the fault strikes loses its leadership. "
            "*Proof*: what nodes count when the fault strikes. *The act*: the call on the process is the proof."
        ),
    ]
    rows = [
        (
            f"`{kind}`",
            _first_paragraph(inspect.getdoc(fault) or ""),
            fault.ends_leadership,
            ", ".join(f"{proof.subject}s {proof.touched}" for proof in fault.proof) or "the act",
            f"`{fault.end_key}`",
        )
        for kind, fault in FAULTS.items()
    ]
    parts.append(table(("fault", "what it does", "ends a leadership", "proof", "ends with"), rows))
    return _page(parts)


# ------------------------------------------------------------------------------ checks and targets


def checks_page() -> str:
    """Every check of a finished cell."""
    parts = [
        "# Checks",
        (
            "The judge makes these checks of every cell, in this order. What ok, violated and unknown mean: "
            "[verdicts](../explanation/verdicts.md). How to add a check: [add a check](../how-to/add-a-check.md)."
        ),
        (
            "*Safety*: a violation means that something wrong happened; otherwise something required did not happen. "
            "*Decisive*: it must be ok for a cell with an unknown verdict to meet `expect: safe`."
        ),
    ]
    rows = [
        (
            f"`{check.name}`",
            _first_paragraph(inspect.getdoc(inspect.getmodule(check.find)) or ""),
            "yes" if check.safety else "no",
            "yes" if check.decisive else "no",
            f"`checks.{check.switch}`" if check.switch else "always runs",
        )
        for check in CHECKS
    ]
    parts.append(table(("check", "question", "safety", "decisive", "switched off by"), rows))
    return _page(parts)


def targets_page() -> str:
    """Every kind of cluster, and what it can do."""
    names = [field.name for field in dataclasses.fields(Capabilities)]
    meanings = attribute_docstrings(Capabilities)
    parts = [
        "# Targets",
        (
            "The kinds of clusters that `target` in a spec can name. "
            "How to add a target: [add a target](../how-to/add-a-target.md)."
        ),
        table(("target", "what it is"), [(f"`{kind.name}`", kind.about) for kind in TARGETS.values()]),
        "## Capabilities",
        table(
            ("capability", *(f"`{target}`" for target in TARGETS), "meaning"),
            [
                (
                    f"`{name}`",
                    *("yes" if getattr(kind.can, name) else "no" for kind in TARGETS.values()),
                    " ".join(meanings[name].split()),
                )
                for name in names
            ],
        ),
    ]
    return _page(parts)


# ------------------------------------------------------------------------------ command line


def command_line_page() -> str:
    """The help of every command, and the targets of the Makefile."""
    parts = [
        "# Command line",
        "`make install` puts `sweep` into `.venv/bin`. Its exit codes: [exit codes](exit-codes.md).",
        "## sweep",
        _help(cli.main, "sweep"),
    ]
    for name, command in cli.main.commands.items():
        parts += [f"## sweep {name}", _help(command, f"sweep {name}")]
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^([a-z-]+):[^#\n]*## (.+)$", text, re.MULTILINE)
    parts += ["## make", table(("target", "what it does"), [(f"`make {name}`", meaning) for name, meaning in targets])]
    return _page(parts)


def _help(command: click.Command, name: str) -> str:
    context = click.Context(
        command, info_name=name, terminal_width=100, max_content_width=100, help_option_names=["-h", "--help"]
    )
    return f"```text\n{command.get_help(context)}\n```"


# ------------------------------------------------------------------------------ the run directory


def run_directory_page() -> str:
    """The files of a run, the arrays of latency.npz, the keys of result.json, and the columns of results.csv."""
    parts = [
        "# Run directory",
        (
            "A run writes `results/<name>/<time>/` while it runs, and it can be read at any moment. "
            "`results/<name>/latest` and `results/latest` point to the newest run. How to read the numbers: "
            "[what the numbers mean](../explanation/numbers.md)."
        ),
        "## Files",
        table(("file", "contents"), [(f"`{name}`", meaning) for name, meaning in FILES.items()]),
        "## latency.npz",
        "`numpy.load` reads it. One row per operation; times are nanoseconds of the driver's monotonic clock.",
        table(("array", "dtype", "meaning"), [(f"`{name}`", *rest) for name, *rest in arrays()]),
        *_prose_of_arrays(),
        "## result.json",
        (
            "One object per cell. `<kind>` is `all`, `put`, `get`, `delete`, `cas` or `append`; `<node>` is a node id; "
            "`<stage>` is a stage of a failover; `[]` is each element of a list. An absent key was not measured."
        ),
        table(("key", "meaning"), [(f"`{key}`", meaning) for key, meaning in RESULT_KEYS.items()]),
        "## results.csv",
        "One row per cell. A metric that was not measured is an empty field.",
        table(
            ("column", "meaning"),
            [(name if "axis" in name else f"`{name}`", meaning) for name, meaning in CSV_COLUMNS.items()],
        ),
        "## Metrics",
        (
            "A metric is a name in [thresholds](parameters.md#spec), a key below `metrics`, and a column of "
            'results.csv. In thresholds a time has its unit: `latency.put.p99: "< 100ms"`.'
        ),
        table(
            ("metric", "column", "unit", "meaning"),
            [
                (f"`{each.name}`", f"`{each.column}`", {"per_s": "1/s"}.get(each.unit, each.unit), each.meaning)
                for each in METRICS.values()
            ],
        ),
    ]
    return _page(parts)


def arrays() -> list[tuple[str, str, str]]:
    """Name, dtype and meaning of each array of latency.npz, from the docstring of sweeps/load/operations.py."""
    found: list[tuple[str, str, str]] = []
    for line in (operations.__doc__ or "").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|") or cells[0] == "array" or set(cells[0]) == {"-"}:
            continue
        if cells[0]:
            found.append((cells[0], cells[1], cells[2]))
        else:
            name, dtype, meaning = found[-1]
            found[-1] = name, dtype, f"{meaning} {cells[2]}"
    return found


def _prose_of_arrays() -> Sequence[str]:
    """Return the paragraphs after the table of that docstring."""
    return (operations.__doc__ or "").rpartition("|\n")[2].strip().split("\n\n")


# ------------------------------------------------------------------------------ exit codes


def exit_codes_page() -> str:
    """The exit codes of `sweep` and of a node."""
    meanings = {
        exit_codes.EXIT_OK: "Success: no cell failed, and every verdict meets its `expect`.",
        exit_codes.EXIT_FAILED: "A cell failed, its infrastructure failed, Ray cannot be reached, or results cannot be "
        "written. `sweep doctor`: something is wrong. `sweep clean`: a host could not be cleaned.",
        2: "The command line or the spec is wrong, the hosts cannot carry the sweep, or a host runs other code. "
        "Nothing was started, unless the code of a host changed during the sweep.",
        exit_codes.EXIT_VIOLATED: "A verdict is violated, and `expect` does not ask for that.",
        exit_codes.EXIT_UNKNOWN: "A verdict is unknown, and `expect` does not ask for that.",
        exit_codes.EXIT_INTERRUPTED: "Interrupted by SIGINT, SIGTERM, or SIGHUP (unless started with `nohup`). "
        "Faults were healed, nodes were stopped, and the measurements so far are kept.",
        141: "The program that read the output has ended, as with `| head`. No message is printed.",
    }
    order: list[int] = []
    while left := [code for code in meanings if code != 141 and code not in order]:
        order.append(exit_codes.worse(*left))
    parts = [
        "# Exit codes",
        "## sweep",
        table(("code", "meaning"), [(str(code), meaning) for code, meaning in meanings.items()]),
        (f"If several apply, the first of {', '.join(map(str, order))} counts."),
        "## A node",
        "Exit codes of `python -m raft_actor_node`. It exits with 0 when it is stopped, or when its owner ends.",
        table(("code", "error", "meaning"), _errors()),
    ]
    return _page(parts)


def _errors() -> list[tuple[str, str, str]]:
    """Return exit code, name and meaning of the errors that end a node."""

    def below(kind: type[RaftLabError]) -> Iterable[type[RaftLabError]]:
        for each in kind.__subclasses__():
            yield each
            yield from below(each)

    own = [each for each in below(RaftLabError) if each.__module__ == "raft_actor_node.errors" and each.exit_code > 1]
    own.sort(key=lambda error: error.exit_code)
    return [(str(each.exit_code), f"`{each.__name__}`", " ".join((inspect.getdoc(each) or "").split())) for each in own]


# ------------------------------------------------------------------------------ pages and tables

PAGES: Mapping[str, Callable[[], str]] = {
    "parameters.md": parameters_page,
    "chaos.md": chaos_page,
    "checks.md": checks_page,
    "targets.md": targets_page,
    "command-line.md": command_line_page,
    "run-directory.md": run_directory_page,
    "exit-codes.md": exit_codes_page,
}
"""The generated pages of docs/reference/ by name."""


def table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""

    def line(cells: Iterable[str]) -> str:
        return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"

    return "\n".join([line(heading), line("---" for _ in heading), *(line(row) for row in rows)])


def _page(parts: Iterable[str]) -> str:
    first, *rest = parts
    return "\n\n".join([first, "<!-- Generated by `make reference`. Do not edit. -->", *rest]) + "\n"


def _first_paragraph(text: str) -> str:
    return " ".join(text.partition("\n\n")[0].split())


def main() -> None:
    """Write all pages."""
    FOLDER.mkdir(exist_ok=True)
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page(), encoding="utf-8")
        print(f"docs/reference/{name}", file=sys.stderr)


if __name__ == "__main__":
    main()
