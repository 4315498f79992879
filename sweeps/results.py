"""The run directory: what a run has found, on disk, whole and readable at any moment.

    results/<name>/<time>/
      spec.yaml  manifest.json  journal.jsonl  results.csv
      cells/<id>/ params.json  result.json  latency.npz  events.jsonl  schedule.json  nodes/<node id>.log
                  inspection.json  traces/<node id>.jsonl.gz   what a check reads beside the arrays and events
                  violation.txt  violation.svg                 a history that is not linearizable, where there is one
    results/<name>/latest, results/latest -> the newest

Files are replaced as a whole (written beside, then renamed), and the folder of a cell comes as a whole; only the
journal grows line by line. So a run that is killed at any moment can be read, and taken up again. A manifest says
`complete: true` once the last cell is done; a run that was interrupted or killed never gets there.
"""

from __future__ import annotations

import contextlib
import csv
import datetime
import errno
import fcntl
import gzip
import io
import json
import os
import platform
import shlex
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestration import host
from orchestration.errors import remedy
from raft_actor_node.errors import ConfigError, RaftLabError
from raft_actor_node.runtime import disk
from sweeps.grid import Cell, show
from sweeps.latency import LOWER_BOUNDS, Operations
from sweeps.thresholds import TIMES

FORMAT = 2
"""Version of what stands in a run directory: of `format` in the manifest. Manifests of version 1 have none. Runs of
every version up to this one are shown and judged; only those of this version are resumed."""
EXIT_OK, EXIT_FAILED, EXIT_VIOLATED, EXIT_UNKNOWN, EXIT_INTERRUPTED = 0, 1, 3, 4, 130
"""Exit codes of `sweep`; 2 is usage or spec. Of several that fit: 130 before 2, 3, 1, 4 and 0."""
_WORST_FIRST = (EXIT_INTERRUPTED, 2, EXIT_VIOLATED, EXIT_FAILED, EXIT_UNKNOWN, EXIT_OK)
_RESULT = ("status", "verdict")
"""What every result.json has, whatever became of the cell."""
_CSV_FIRST = ("cell", "repeat", "status", "verdict", "not_checked", "reason", "target", "load_scaled")
_COMPRESSION = 3
"""Of traces: several times as fast as the usual level, and nearly as small."""


class WriteFailed(RaftLabError):
    """A file of the results cannot be written. The message names it, says why, and what to do."""


def worse(*codes: int) -> int:
    """The exit code that counts where several hold."""
    return next((code for code in _WORST_FIRST if code in codes), EXIT_FAILED)


def ends_with(error: Exception, found: int) -> None:
    """Have an error that ends the program exit with the worse of its own exit code and `found`, that of the results so
    far: a violation stays one, also where it cannot be written or printed."""
    error.exit_code = worse(found, getattr(error, "exit_code", EXIT_FAILED))  # type: ignore[attr-defined]


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Around each change of a file or folder of the results: an OSError becomes a WriteFailed, which names the path.
    The system's own errors name none once a file is open."""
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error)
        raise WriteFailed(f"{path}: cannot be written: {why}; {remedy(error)}") from error


def new_directory(path: Path) -> Path:
    """Make a directory that nobody else has, and those above it: of this name, or with a number behind it. Raises
    OSError."""
    for suffix in ("", *(f"-{attempt}" for attempt in range(2, 100))):
        with contextlib.suppress(FileExistsError):
            (made := path.with_name(path.name + suffix)).mkdir(parents=True)
            return made
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))


def write_text(path: Path, text: str) -> None:
    """Replace a file as a whole."""
    partial = path.with_name(f".{path.name}.partial")
    with writing(path):
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)


def write_json(path: Path, data: Any) -> None:
    """Replace a JSON file as a whole. What JSON cannot hold, such as NaN, is an error."""
    write_text(path, json.dumps(data, indent=2, allow_nan=False) + "\n")


@dataclass(frozen=True)
class CellFiles:
    """Everything a cell leaves behind besides its result."""

    operations: Operations | None
    events: Sequence[Mapping[str, Any]]
    """Faults, phases and trace events; they are put in order of time."""
    schedule: Mapping[str, Any] | None
    logs: Mapping[str, str]
    """Node id to log."""
    traces: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Node id to all lines of its trace, on its own clock."""
    inspection: Mapping[str, Any] = field(default_factory=dict)
    """What the nodes told of themselves at the end."""


class RunLock:
    """Held by whoever writes in a run directory, for as long as it lives: the kernel lets go of it then."""

    def __init__(self, path: Path) -> None:
        """Raises ConfigError when somebody else holds it."""
        self._directory: int | None = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            raise ConfigError(f"{path}: it still runs, or is being judged") from None
        except OSError:
            pass  # a file system that knows no locks

    def release(self) -> None:
        """Let others write there."""
        directory, self._directory = self._directory, None
        if directory is not None:
            os.close(directory)

    __del__ = release


class RunWriter:
    """Writes a run directory, cell by cell. Nobody else may until it has finished. Made by `create` or `reopen`."""

    def __init__(self, path: Path, manifest: Mapping[str, Any], lock: RunLock) -> None:
        self.path = path
        self._manifest = dict(manifest)
        self._rows: dict[str, dict[str, Any]] = {}
        self._lock = lock
        self._finished = False

    @classmethod
    def create(cls, out: Path, name: str, spec_yaml: str, manifest: Mapping[str, Any]) -> RunWriter:
        """Make the directory of a new run below `out`. Raises ConfigError when it cannot be written."""
        stamp = datetime.datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
        try:
            path = new_directory(out / name / stamp)
        except OSError as error:
            raise ConfigError(f"--out {out}: cannot be written: {error.strerror}; {remedy(error)}") from None
        writer = cls(path, manifest, RunLock(path))
        with writing(path):
            (path / "cells").mkdir()
        write_text(path / "spec.yaml", spec_yaml)
        write_rows(path, ())
        writer._write_manifest(complete=False)  # last: where there is a manifest there is a run
        for link in (path.parent / "latest", path.parent.parent / "latest"):
            _point(link, path)
        return writer

    @classmethod
    def reopen(cls, path: Path, cells: Sequence[Cell], facts: Mapping[str, Any]) -> tuple[RunWriter, list[StoredCell]]:
        """Take up a run that has stopped; also those of its `cells` that are done, in the order in which they ran. The
        others are to be run again, or for the first time. `facts` stand in the manifest beside the time of this. Raises
        ConfigError when the run is damaged, still runs, or has other cells."""
        lock = RunLock(path)
        run = read_run(path)
        identities = run.manifest.get("cells")
        if identities is not None and sorted(identities) != sorted(cell.id for cell in cells):
            began = run.manifest.get("commit") or "another version"
            raise ConfigError(f"{path}: its spec.yaml gives other cells than it did when the run began, with {began}")
        writer = cls(path, run.manifest, lock)
        for name in ("finished", "exit_code", "stopped"):
            writer._manifest.pop(name, None)
        writer._manifest["resumed"] = [*run.manifest.get("resumed", ()), {"time": _now(), **facts}]
        writer._write_manifest(complete=False)
        with writing(path):
            _end_line(path / "journal.jsonl")
            for partial in [*path.rglob(".*.partial")]:
                if partial.is_dir():
                    shutil.rmtree(partial, ignore_errors=True)
                else:
                    partial.unlink(missing_ok=True)
        found = _found_cells(run, cells)
        writer._rows = {cell.params["cell"]: csv_row(cell.params, cell.result) for cell in found}
        write_rows(path, writer._rows.values())
        return writer, [cell for cell in found if is_done(cell.result)]

    @property
    def resumed(self) -> bool:
        """Whether it was taken up again."""
        return "resumed" in self._manifest

    def journal(self, event: str, **data: Any) -> None:
        """Add a line to the journal: what happened, and when on the wall clock and on the monotonic one."""
        line = {"time": _now(), "time_ns": time.monotonic_ns(), "event": event, **data}
        path = self.path / "journal.jsonl"
        with writing(path), path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def add_place(self, facts: Mapping[str, Any]) -> None:
        """Put into the manifest what the cells to come run on; of a run that was taken up again, beside the time of
        that: what stood there tells of the cells before. Raises ConfigError when those ran on a private Ray, and these
        would not, or the other way round."""
        private = self._manifest.setdefault("private_ray", facts["private_ray"])
        if private != facts["private_ray"]:
            began, now = ("a private Ray", "a Ray cluster") if private else ("a Ray cluster", "a private Ray")
            raise ConfigError(f"--address: the run began on {began} ({self._manifest.get('ray')}), and this is {now}")
        place: dict[str, Any] = self._manifest["resumed"][-1] if self.resumed else self._manifest
        place.update(facts)
        self._write_manifest(complete=False)

    def add_facts(self, facts: Mapping[str, Any]) -> None:
        """Put more into the manifest."""
        self._manifest |= facts
        self._write_manifest(complete=False)

    def write_cell(self, cell: Cell, result: Mapping[str, Any], files: CellFiles) -> Path:
        """Write the folder of a cell, in the place of one of an earlier time, and its row."""
        folder = self.path / "cells" / f".{cell.id}.partial"
        shutil.rmtree(folder, ignore_errors=True)
        with writing(folder):
            (folder / "nodes").mkdir(parents=True)
        write_json(folder / "params.json", describe(cell))
        for node_id, log in files.logs.items():
            write_text(folder / "nodes" / f"{node_id}.log", log)
        ordered = sorted(files.events, key=lambda event: int(event["time_ns"]))
        write_text(folder / "events.jsonl", "".join(json.dumps(event) + "\n" for event in ordered))
        write_json(folder / "schedule.json", files.schedule)
        if files.operations is not None:
            with writing(path := folder / "latency.npz"):
                files.operations.save(path)
        write_json(folder / "inspection.json", files.inspection)
        for node_id, lines in files.traces.items():
            with writing(path := folder / "traces" / f"{node_id}.jsonl.gz"):
                path.parent.mkdir(exist_ok=True)
                _write_compressed(path, lines)
        write_json(folder / "result.json", result)
        if self.folder(cell).exists():
            # No row without its folder, at any moment.
            self._rows.pop(cell.id, None)
            write_rows(self.path, self._rows.values())
            with writing(self.folder(cell)):
                shutil.rmtree(self.folder(cell))
        with writing(self.folder(cell)):
            folder.replace(self.folder(cell))
        self._write_row(cell, result)
        return self.folder(cell)

    def write_result(self, cell: Cell, result: Mapping[str, Any]) -> None:
        """Write the result of a cell, and its row, anew."""
        write_json(self.folder(cell) / "result.json", result)
        self._write_row(cell, result)

    def _write_row(self, cell: Cell, result: Mapping[str, Any]) -> None:
        self._rows[cell.id] = csv_row(describe(cell), result)
        write_rows(self.path, self._rows.values())

    def folder(self, cell: Cell) -> Path:
        """The folder of a cell."""
        return self.path / "cells" / cell.id

    def finish(self, *, complete: bool, exit_code: int) -> None:
        """Say in the manifest how the run ended, and let others write there. What comes later changes nothing."""
        if self._finished:
            return
        self._finished = True
        self._manifest |= {"finished": _now(), "exit_code": exit_code}
        self._write_manifest(complete=complete)
        self._lock.release()

    def _write_manifest(self, *, complete: bool) -> None:
        self._manifest["complete"] = complete
        write_json(self.path / "manifest.json", self._manifest)


def _found_cells(run: StoredRun, cells: Sequence[Cell]) -> list[StoredCell]:
    """Those of the cells that ended, also one whose folder came to be when its row did not yet."""
    ended = {cell.params["cell"]: cell for cell in run.cells}
    for cell in cells:
        folder = run.path / "cells" / cell.id
        if cell.id not in ended and folder.is_dir():
            try:
                ended[cell.id] = read_cell(folder)
            except OSError:
                pass  # it was about to be replaced
            except ValueError as error:
                raise ConfigError(f"{run.path}: is not a run that can be read: {error}") from None
    return list(ended.values())


def is_done(result: Mapping[str, Any]) -> bool:
    """Whether a cell is not to be run again. However it ended: a violation that it found stands."""
    return result["status"] in ("ok", "failed") or result["verdict"]["verdict"] == "violated"


def _end_line(path: Path) -> None:
    """Cut off the line that a SIGKILL left unfinished."""
    if path.exists():
        written = path.read_bytes()
        os.truncate(path, written.rfind(b"\n") + 1)


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write the results.csv of the run in `path`."""
    rows = list(rows)
    names = list(dict.fromkeys((*_CSV_FIRST, *(name for row in rows for name in row))))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path / "results.csv", text.getvalue())


def _write_compressed(path: Path, lines: Iterable[str]) -> None:
    partial = path.with_name(f".{path.name}.partial")
    # No time in it: the same trace gives the same bytes.
    partial.write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode(), _COMPRESSION, mtime=0))
    partial.replace(path)


def describe(cell: Cell) -> dict[str, Any]:
    """A cell as JSON: params.json."""
    return {
        "cell": cell.id,
        "label": cell.label,
        "axes": cell.axes,
        "repeat": cell.repeat,
        "seed": cell.seed,
        "warnings": list(cell.warnings),
        "signature": dict(cell.signature),
        "parameters": cell.parameters.model_dump(mode="json"),
    }


def csv_row(params: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, Any]:
    """One row of results.csv, from params.json and result.json; what was not measured is empty."""
    verdict = result.get("verdict", {})
    row: dict[str, Any] = {"cell": params["cell"], "repeat": params["repeat"], "status": result["status"]}
    row["verdict"] = verdict.get("verdict", "")
    row["not_checked"] = "; ".join(verdict.get("not_checked", ()))
    row["reason"] = result.get("reason") or verdict.get("reason") or ""
    row["target"] = params["parameters"]["target"]
    row["load_scaled"] = "; ".join(load_changes(result))
    row["load.mode"] = params["parameters"]["load"]["mode"]
    row |= {name: show(value) for name, value in params["axes"].items()}
    row["cluster.nodes"] = params["parameters"]["cluster"]["nodes"]
    row["hosts"] = "; ".join(f"{host} x {count}" for host, count in nodes_by_host(result).items())
    row["chaos"] = result.get("chaos", "")
    row |= {_csv_name(name): "" if value is None else value for name, value in result.get("metrics", {}).items()}
    row["lower_bounds"] = "; ".join(_csv_name(name) for name in result.get(LOWER_BOUNDS, ()))
    row["flags"] = "; ".join(result.get("flags", ()))
    return row


def nodes_by_host(result: Mapping[str, Any]) -> Counter[str]:
    """Address of each host that had nodes of a cell, and how many."""
    return Counter(place["host"] for place in (result.get("placement") or {}).values())


def load_changes(result: Mapping[str, Any]) -> list[str]:
    """What a simulated cell had in place of the load that was asked for: `load.rate 391, not 1000`."""
    return [f"{name} {now}, not {asked}" for name, (asked, now) in (result.get("load_scaled") or {}).items()]


def _csv_name(metric: str) -> str:
    """`latency.put.p99` as a column whose name ends with its unit."""
    name = metric.replace(".", "_").replace("p99_9", "p99.9")
    if metric in TIMES:
        return f"{name}_ms"
    return f"{name}_per_s" if metric == "throughput" else name


def _point(link: Path, target: Path) -> None:
    """Make `link` a relative symbolic link to `target`, in one step. Where that is impossible there is none."""
    partial = link.with_name(f".{link.name}.{os.getpid()}")
    try:
        partial.unlink(missing_ok=True)
        partial.symlink_to(target.relative_to(link.parent))
        partial.replace(link)
    except OSError:
        partial.unlink(missing_ok=True)


def _now() -> str:
    return datetime.datetime.now().astimezone().isoformat(timespec="milliseconds")


def manifest(*, seed: int, command_line: Sequence[str], spec_name: str, storage_dir: str) -> dict[str, Any]:
    """What one needs to make the numbers again, besides the spec: versions, commit, machine, command line."""
    return {
        "format": FORMAT,
        "name": spec_name,
        "started": _now(),
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
    """The commit of the source tree this runs from, with `+` when it has changes; None outside of one."""
    root = Path(__file__).parent.parent

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
    """Type and device of the file system a path is, or was, on: `ext4 on /dev/sda1`. None where nobody tells."""
    found = disk.file_system(path)
    return " on ".join(found) if found is not None else None


@dataclass(frozen=True)
class StoredCell:
    """A cell in a run directory."""

    path: Path
    params: dict[str, Any]
    result: dict[str, Any]

    def operations(self) -> Operations:
        """Its operations as arrays. Raises FileNotFoundError when the cell never came to measure."""
        return Operations.load(self.path / "latency.npz")

    def inspection(self) -> dict[str, Any]:
        """What the nodes told of themselves at the end; empty when they could not be asked."""
        found: dict[str, Any] = json.loads((self.path / "inspection.json").read_text("utf-8"))
        return found

    def events(self) -> list[dict[str, Any]]:
        """Phases, faults, and trace events (of the commits only some), on the driver's clock."""
        return [json.loads(line) for line in (self.path / "events.jsonl").read_text("utf-8").splitlines()]

    def traces(self) -> dict[str, list[str]]:
        """Node id to all lines of its trace, on its own clock."""
        files = sorted((self.path / "traces").glob("*.jsonl.gz"))
        return {
            file.name.removesuffix(".jsonl.gz"): gzip.decompress(file.read_bytes())
            .decode("utf-8", "replace")
            .splitlines()
            for file in files
        }


@dataclass(frozen=True)
class StoredRun:
    """A run directory, read back."""

    path: Path
    manifest: dict[str, Any]
    cells: list[StoredCell]
    """Those that ended, in the order in which they ran."""


def find_run(out: Path, run: str | None) -> Path:
    """The directory of a run: a path, `NAME`, `NAME/TIME`, or the newest. Raises ConfigError."""
    candidates = [out / "latest"] if run is None else [Path(run), out / run, out / run / "latest", Path(run) / "latest"]
    for path in candidates:
        if (path / "manifest.json").is_file():
            return path.resolve()
    if run is None:
        raise ConfigError(f"{out}: no run here; `sweep run` makes one")
    raise ConfigError(f"{run}: no run here; name the directory of a run, or NAME or NAME/TIME of one below {out}")


def read_run(path: Path) -> StoredRun:
    """Read a run directory, also one that is being written. Raises ConfigError when it is damaged, or of a later
    format."""
    try:
        manifest = _read_manifest(path)
        with (path / "results.csv").open(encoding="utf-8", newline="") as file:
            ids = [row["cell"] for row in csv.DictReader(file)]
        return StoredRun(path, manifest, [read_cell(path / "cells" / identity) for identity in ids])
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"{path}: is not a run that can be read: {error}") from None


def check_resumable(path: Path) -> None:
    """Raise ConfigError when a run was begun in another format: its cells would not be comparable with new ones."""
    try:
        manifest = _read_manifest(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: is not a run that can be read: {error}") from None
    if why := not_resumable(manifest):
        raise ConfigError(f"{path}: {why}")


def not_resumable(manifest: Mapping[str, Any]) -> str | None:
    """Why a run with this manifest cannot be resumed by this version, and what to do; None when it can."""
    if (version := manifest.get("format", 1)) == FORMAT:
        return None
    began = manifest.get("commit") or "unknown"
    return (
        f"a run of format {version}, and this version writes format {FORMAT}: resume it with the version that began it"
        f" (commit {began}), or run its spec.yaml anew"
    )


def resume_command(path: Path) -> str:
    """The command that resumes the run in a directory, as it is typed into a shell."""
    return f"sweep resume {shlex.quote(str(path))}"


def _read_manifest(path: Path) -> dict[str, Any]:
    manifest = _read_object(path / "manifest.json")
    version = manifest.get("format", 1)
    if not isinstance(version, int):
        raise ValueError(f"{path / 'manifest.json'}: format: must be a number, not {version!r}")
    if version > FORMAT:
        raise ConfigError(
            f"{path}: a run of format {version}; this version reads formats 1 to {FORMAT}: use the one that wrote it"
        )
    return manifest


def read_cell(folder: Path) -> StoredCell:
    """One cell from its folder. Raises OSError and ValueError."""
    params = _read_object(folder / "params.json", "cell", "axes", "repeat", "parameters")
    result = _read_object(path := folder / "result.json", *_RESULT)
    if not isinstance(result["verdict"], dict) or "verdict" not in result["verdict"]:
        raise ValueError(f"{path}: verdict: must be an object with a verdict")
    return StoredCell(folder, params, result)


def _read_object(path: Path, *names: str) -> dict[str, Any]:
    """The JSON object in a file, which has at least these names. Raises OSError and ValueError, which name the file."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path}: must be a JSON object, not {type(found).__name__}")
    if missing := [name for name in names if name not in found]:
        raise ValueError(f"{path}: {', '.join(missing)} missing")
    return found
