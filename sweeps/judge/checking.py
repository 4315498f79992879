"""Judge cells and histories, each in its own process (program.py), and store the verdicts."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from chaos.checks.finding import Finding
from chaos.history import BadHistory
from raft_actor_node.errors import ConfigError, RaftLabError
from raft_actor_node.patience import Patience
from sweeps.judge.exit_codes import EXIT_OK, EXIT_UNKNOWN, ends_with
from sweeps.judge.expectations import exit_code, unjudged, with_verdict
from sweeps.judge.program import OUT_OF_MEMORY
from sweeps.spec.parameters import CheckSettings, Parameters
from sweeps.store.files import write_json
from sweeps.store.lock import RunLock
from sweeps.store.reader import read_run
from sweeps.store.results_csv import csv_row, write_rows

_MARGIN_S = 60.0
"""Time for reading the files and judging the traces, in addition to the time limit for checking the history."""
_TAIL = 300


async def judged(path: Path, checks: CheckSettings) -> dict[str, Any]:
    """Return the verdict on the cell in a folder, or on the history in a file.

    If the judge fails or exceeds its limits, the verdict is unknown, or violated if the judge had already reported a
    violation.
    """
    most_s = checks.time_limit + _MARGIN_S
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-m",
        "sweeps.judge.program",
        str(path),
        str(checks.time_limit),
        str(checks.memory_limit),
        stdin=subprocess.PIPE,  # the judge ends when this pipe closes, however this program ends
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # The threads of numpy's libraries would reserve memory that the check may use.
        env={**os.environ, "PYTHONPATH": _path(), "OPENBLAS_NUM_THREADS": "1", "MPLBACKEND": "Agg"},
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    told: list[dict[str, Any]] = []
    reason = ""
    try:
        async with Patience(most_s):
            errors, _, _ = await asyncio.gather(process.stderr.read(), _lines(process.stdout, told), process.wait())
    except TimeoutError:
        reason = f"took more than {most_s:g} s"
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode == 0 and told and "findings" in told[-1]:
        return told[-1]
    if not reason:
        last = next((line for line in reversed(errors.decode(errors="replace").splitlines()) if line.strip()), "")
        reason = OUT_OF_MEMORY if "MemoryError" in last else last[:_TAIL] or f"ended with {process.returncode}"
    return unjudged(reason, [Finding(**each) for each in told if "findings" not in each])


async def _lines(stream: asyncio.StreamReader, told: list[dict[str, Any]]) -> None:
    """Collect the JSON objects among the lines as they arrive. Skip the torn last line of a killed judge."""
    rest = b""
    while data := await stream.read(1 << 16):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            with contextlib.suppress(ValueError):
                told.append(dict(json.loads(line)))


async def check_run(
    path: Path, bounds: Mapping[str, Any], note: Callable[[Mapping[str, Any], Mapping[str, Any]], None]
) -> int:
    """Judge every cell of a stored run again and rewrite its results; return the resulting exit code.

    `bounds` override `checks` settings of the cells. `note` receives the params and the result of each judged cell. A
    run that is incomplete or has no cell is unknown at best. Raises ConfigError if the run cannot be read or still
    runs.
    """
    lock = RunLock(path)
    results: list[dict[str, Any]] = []
    try:
        return await _check_run(path, bounds, note, results)
    except (RaftLabError, OSError) as error:
        ends_with(error, exit_code(results))
        raise
    finally:
        lock.release()


async def _check_run(
    path: Path,
    bounds: Mapping[str, Any],
    note: Callable[[Mapping[str, Any], Mapping[str, Any]], None],
    results: list[dict[str, Any]],
) -> int:
    """Append each cell's result to `results` before it is written."""
    run = read_run(path)
    rows = []
    for cell in run.cells:
        parameters = Parameters.model_validate(cell.params["parameters"])
        verdict = await judged(cell.path, parameters.checks.model_copy(update=bounds))
        result = with_verdict(cell.result, verdict, parameters.expect)
        results.append(result)
        write_json(cell.path / "result.json", result)
        rows.append(csv_row(cell.params, result))
        write_rows(path, [*rows, *(csv_row(left.params, left.result) for left in run.cells[len(rows) :])])
        note(cell.params, result)
    complete = bool(run.manifest.get("complete"))
    code = exit_code(results)
    if code == EXIT_OK and not (complete and results):
        code = EXIT_UNKNOWN
    if complete:
        write_json(path / "manifest.json", {**run.manifest, "exit_code": code})
    return code


def check_history(path: Path, checks: CheckSettings) -> tuple[str, str]:
    """Return the verdict on a history in JSON lines, ours or another tool's, and the text to print.

    A violation is written beside the file, as NAME.violation.txt and NAME.violation.svg. Raises ConfigError if the file
    is not regular, or, with file and line, if it is not a history.
    """
    real = Path(os.path.realpath(path))
    if not real.is_file():
        raise ConfigError(
            f"--history: {path}: must be a regular file, because another process reads it; save the history to a file"
        )
    # A descriptor of this process, such as /dev/stdin, is a different file in the judging process.
    verdict = asyncio.run(judged(real if path.parts[:2] in (("/", "dev"), ("/", "proc")) else path, checks))
    if "bad_history" in verdict:
        raise BadHistory(verdict["bad_history"])
    [finding] = verdict["findings"]
    took = f" ({verdict['seconds']:.1f} s)" if "seconds" in verdict else ""
    parts = [f"{finding['verdict']}: {finding['reason']}{took}", finding["detail"].rstrip(), verdict.get("written", "")]
    return finding["verdict"], "\n\n".join(filter(None, parts))


def _path() -> str:
    """Return a PYTHONPATH with which a process in any folder can import this project."""
    return os.pathsep.join(filter(None, (str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH"))))
