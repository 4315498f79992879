"""Rules of this project: which package imports which, fresh generated code, and conventions of the text."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest

from sweeps.spec.parameters import PARAMETER_NAMES

ROOT = Path(__file__).parent.parent
PACKAGES = ("raft_actor_node", "chaos", "orchestration", "sweeps")
CORE_MAY_IMPORT = {
    "__future__", "array", "bisect", "collections", "dataclasses", "enum", "math", "random", "typing",
    "raft_actor_node.core", "raft_actor_node.errors",
}  # fmt: skip
KV_MAY_IMPORT = CORE_MAY_IMPORT | {"hashlib", "struct", "zlib", "raft_actor_node.kv"}

ALLOWED = {
    "raft_actor_node": {"raft_actor_node"},
    "chaos": {"chaos", "raft_actor_node"},
    "orchestration": {"orchestration", "raft_actor_node"},
    "sweeps": {"sweeps", "chaos", "orchestration", "raft_actor_node"},
}
"""Project packages that a package may import: chaos and orchestration are siblings."""

ROOMS_OF_SWEEPS = ("spec", "load", "analysis", "store", "judge", "run", "show")
"""Each imports only itself and those before it. Campaign, api and cli are above them."""

GRPC_ROOMS = ("raft_actor_node/runtime/", "raft_actor_node/client", "raft_actor_node/pb/")


def modules(folder: str = "") -> list[Path]:
    found = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    return [path for path in found if path.relative_to(ROOT).as_posix().startswith(folder)]


def imports(path: Path) -> list[tuple[int, str]]:
    """Return the line and dotted name of each import anywhere in a module."""
    found = []
    for statement in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(statement, ast.Import):
            found += [(statement.lineno, alias.name) for alias in statement.names]
        elif isinstance(statement, ast.ImportFrom):
            assert statement.level == 0, f"{path}:{statement.lineno}: a relative import"
            found.append((statement.lineno, statement.module or ""))
    return found


def offences(paths: list[Path], wrong: object) -> list[str]:
    assert paths
    assert callable(wrong)
    return [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in paths
        for line, name in imports(path)
        if wrong(path.relative_to(ROOT).as_posix(), name)
    ]


def within(name: str, allowed: set[str]) -> bool:
    return any(name == package or name.startswith(package + ".") for package in allowed)


def test_packages_import_downwards_only() -> None:
    def wrong(path: str, name: str) -> bool:
        return within(name, set(PACKAGES)) and not within(name, ALLOWED[path.split("/", maxsplit=1)[0]])

    assert offences(modules(), wrong) == []


def test_the_rooms_of_sweeps_import_in_one_direction() -> None:
    def wrong(path: str, name: str) -> bool:
        room = path.split("/")[1]
        allowed = ROOMS_OF_SWEEPS[: ROOMS_OF_SWEEPS.index(room) + 1]
        return within(name, {"sweeps"}) and not within(name, {f"sweeps.{each}" for each in allowed})

    rooms = [path for room in ROOMS_OF_SWEEPS for path in modules(f"sweeps/{room}/")]
    assert offences(rooms, wrong) == []


def test_every_room_is_a_package_that_says_what_is_in_it() -> None:
    """Setuptools leaves a folder without __init__.py out of a wheel."""
    rooms = {path.parent for path in modules()}
    silent = [room for room in rooms if not (room / "__init__.py").is_file() or not doc_of(room / "__init__.py")]
    assert [room.relative_to(ROOT).as_posix() for room in silent if room.name != "pb"] == []


def test_every_check_says_in_one_line_what_it_asks() -> None:
    """The reference contains the first line of its docstring."""
    checks = [path for path in modules("chaos/checks/") if "CHECK = Check(" in path.read_text(encoding="utf-8")]
    assert len(checks) > 5
    assert [path.name for path in checks if not (doc_of(path) or "").splitlines()[:1]] == []


def test_every_parameter_is_read() -> None:
    """A parameter that no code reads would be a promise without effect."""
    read = {
        node.attr
        for path in modules()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    }
    assert len(PARAMETER_NAMES) > 50
    assert [name for name in PARAMETER_NAMES if name.rpartition(".")[2] not in read] == []


def test_attributes_stand_at_the_top_of_their_class() -> None:
    late = []
    for path in modules():
        if "/pb/" in path.as_posix():
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            body = node.body if isinstance(node, ast.ClassDef) else []
            methods = [each.lineno for each in body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)]
            attributes = [each.lineno for each in body if isinstance(each, ast.Assign | ast.AnnAssign)]
            late += [f"{path.relative_to(ROOT)}:{line}" for line in attributes if methods and line > methods[0]]
    assert late == []


def doc_of(path: Path) -> str | None:
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize(("room", "allowed"), [("core", CORE_MAY_IMPORT), ("kv", KV_MAY_IMPORT)])
def test_the_core_and_the_store_are_pure(room: str, allowed: set[str]) -> None:
    """No clock, no sockets, no files, no asyncio, no logging."""
    assert offences(modules(f"raft_actor_node/{room}/"), lambda _, name: not within(name, allowed)) == []


def test_the_core_draws_no_randomness_of_its_own() -> None:
    drawn = re.compile(r"\brandom\.(?!Random\b)\w+")
    assert [p.name for p in modules("raft_actor_node/core/") if drawn.search(p.read_text(encoding="utf-8"))] == []


def test_ray_is_imported_in_orchestration_only() -> None:
    def wrong(path: str, name: str) -> bool:
        return within(name, {"ray"}) and not path.startswith("orchestration/")

    assert offences(modules(), wrong) == []


def test_grpc_is_imported_in_its_rooms_only() -> None:
    def wrong(path: str, name: str) -> bool:
        return within(name, {"grpc", "grpc_health", "grpc_reflection"}) and not path.startswith(GRPC_ROOMS)

    assert offences(modules(), wrong) == []


def test_the_testbed_is_imported_by_no_other_room() -> None:
    """It needs root, and runs the rest of this project as programs."""

    def wrong(path: str, name: str) -> bool:
        return within(name, {"orchestration.testbed"}) and not path.startswith("orchestration/testbed/")

    assert offences(modules(), wrong) == []


def dotted(path: Path) -> str:
    """Return the name under which a module is imported."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def import_graph() -> dict[str, set[str]]:
    """Return the product modules that each product module imports, even inside functions or under TYPE_CHECKING."""
    known = {dotted(path) for path in modules()}
    graph: dict[str, set[str]] = {name: set() for name in known}
    for path in modules():
        for statement in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(statement, ast.Import):
                named = [alias.name for alias in statement.names]
            elif isinstance(statement, ast.ImportFrom):
                inside = [f"{statement.module}.{alias.name}" for alias in statement.names]
                named = [name if name in known else str(statement.module) for name in inside]
            else:
                continue
            graph[dotted(path)].update(name for name in named if name in known and name != dotted(path))
    return graph


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return the groups of modules that import each other in a circle (strongly connected components)."""
    reach: dict[str, set[str]] = {}
    for start in graph:
        reach[start], left = set(), [start]
        while left:
            new = graph[left.pop()] - reach[start]
            reach[start] |= new
            left += new
    groups = {
        frozenset(other for other in reach[name] if name in reach[other]) for name in graph if name in reach[name]
    }
    return sorted(sorted(group) for group in groups)


def test_modules_import_one_another_in_no_circle() -> None:
    assert circles(import_graph()) == []


WALL_CLOCK = re.compile(
    r"\btime\.(?:time|ctime|gmtime|strftime|localtime|asctime)\w*|from time import (?!monotonic).*"
    r"|CLOCK_REALTIME\w*|\w*datetime\w*|st_[acm]time\w*|get[acm]time|asctime"
)
LABELS_FOR_PEOPLE = {"raft_actor_node/__main__.py": {"asctime"}}
"""Uses of the time of day that only label output for people. Sweeps is excluded: names and journals of runs use it."""


def test_no_wall_clock_decides_anything() -> None:
    """A wall clock that jumps has no effect, because all timing uses a monotonic clock."""
    rooms = [each for room in ("raft_actor_node/", "chaos/", "orchestration/") for each in modules(room)]
    text = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in rooms}
    found = {name: set(WALL_CLOCK.findall(code)) for name, code in text.items() if "/pb/" not in name}
    assert {name: told for name, told in found.items() if told} == LABELS_FOR_PEOPLE


WALL_TIME = re.compile(r"\basyncio\.timeout\(|\bwait_for\(|\btimeout=")
VIRTUAL_TIME = ("orchestration/sim_cluster/", "sweeps/campaign/")
MAY_COUNT_PAUSES = {
    "orchestration/ray_cluster/calls.py": 1,  # it checks its condition once more after the timeout
    "orchestration/ray_cluster/session.py": 1,  # the kernel, which was not paused, answers the connection
    "orchestration/ray_cluster/supervised.py": 2,  # one of many attempts, which are repeated as long as Patience lasts
    "orchestration/testbed/hosts.py": 2,  # commands that set up a network; they were not paused
    "sweeps/store/manifest.py": 1,  # if git does not report the commit in time, it is recorded as unknown
}
"""Number of uses of wall-time timeouts by file, with the reason why each is harmless."""


def test_a_pause_of_the_driver_is_no_silence_of_others() -> None:
    """When a stopped or suspended driver wakes, wall-time timeouts have expired; Patience counts running time only."""
    rooms = [each for room in ("sweeps/", "chaos/", "orchestration/") for each in modules(room)]
    text = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in rooms}
    found = {name: len(WALL_TIME.findall(code)) for name, code in text.items() if not name.startswith(VIRTUAL_TIME)}
    assert {name: count for name, count in found.items() if count} == MAY_COUNT_PAUSES


def test_the_runtime_does_not_know_its_clients() -> None:
    def wrong(_: str, name: str) -> bool:
        return name.startswith("raft_actor_node.client")

    assert offences(modules("raft_actor_node/runtime/"), wrong) == []


def test_generated_code_is_fresh(tmp_path: Path) -> None:
    protos = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "proto").glob("*.proto"))
    command = [sys.executable, "-m", "grpc_tools.protoc", "-Iraft_actor_node/pb=proto"]
    outputs = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")]
    subprocess.run([*command, *outputs, *protos], cwd=ROOT, check=True)
    fresh = {path.name: path.read_bytes() for path in (tmp_path / "raft_actor_node/pb").iterdir()}
    committed = {
        p.name: p.read_bytes() for p in (ROOT / "raft_actor_node/pb").iterdir() if "_pb2" in p.name and p.is_file()
    }
    assert committed == fresh, "run make proto"


def test_every_field_of_every_message_is_commented() -> None:
    declaration = re.compile(r"(repeated |optional )?[\w.]+ \w+ = \d+;|(message|enum|service|rpc) ")
    bare = []
    for path in (ROOT / "proto").glob("*.proto"):
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        for number, (above, line) in enumerate(pairwise(lines), 2):
            own = above.startswith("//") or above == "oneof body {"
            if declaration.match(line) and not own:
                bare.append(f"{path.name}:{number} {line}")
    assert bare == []


def committed_text() -> list[tuple[str, str]]:
    """Return the name and text of every file under version control, except generated ones."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    files = [(name, ROOT / name) for name in listed if not name.startswith("raft_actor_node/pb/")]
    return [(name, path.read_text(encoding="utf-8", errors="replace")) for name, path in files if path.is_file()]


def test_no_port_number_stands_in_any_file() -> None:
    """Every server binds port 0.

    Examples in documentation use 4123x. Port 8265 is Ray's, for jobs. Tests are excluded: no server opens theirs.
    """
    port = re.compile(r"(?:localhost|127\.0\.0\.1|0\.0\.0\.0):(?!(?:4123\d|8265)\b)[1-9]\d{1,4}\b")
    text = [(name, text) for name, text in committed_text() if not name.startswith("tests/")]
    assert text
    assert [f"{name}: {match[0]}" for name, text in text for match in port.finditer(text)] == []


def test_no_package_registry_is_named() -> None:
    address = re.compile(r"https?://[^\s\"'`]*/(?:simple|packages)\b|pypi\.org|index-url\s*=")
    ours = "tests/test_architecture.py"
    assert [f"{name}: {m[0]}" for name, text in committed_text() if name != ours for m in address.finditer(text)] == []


def test_sections_of_a_file_are_marked_in_one_way() -> None:
    rule, ours = re.compile(r"\s*# *([-=#*~_])\1+( |$)"), re.compile(r"\s*# -{60,} \S")
    text = [(name, text.splitlines()) for name, text in committed_text() if name.endswith(".py")]
    found = [f"{name}: {line}" for name, lines in text for line in lines if rule.match(line) and not ours.match(line)]
    assert found == []


def test_the_newest_section_of_the_changelog_is_this_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"(?m)^## (.*)$", changelog)[0] == version


NO_PLAIN_ENGLISH = re.compile(
    r"\b(?:nobody|somebody|whoever|everybody|in haste|(?:stood|stands?) still|heard of|c[ao]mes? about)\b",
    re.IGNORECASE,
)


def test_the_text_says_who_does_what() -> None:
    """Name the client, the leader, the judge, the caller. Tests keep the words of their names."""
    text = [(name, text) for name, text in committed_text() if not name.startswith("tests/")]
    found = [f"{name}: {match[0]}" for name, text in text for match in NO_PLAIN_ENGLISH.finditer(text)]
    assert found == []
