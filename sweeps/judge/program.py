"""Judge a cell from its folder alone: `judge` is a function of the files; the program wraps it.

The program (`python -m sweeps.judge.program PATH SECONDS BYTES`) never runs during a measurement. It uses bounded
memory. It prints each finding as a line of JSON as soon as it exists, then the verdict. It ends when its standard
input closes, so it does not outlive the process that started it. PATH may also be a file: a history in JSON lines, ours
or another tool's.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from chaos.checks.base import Check
from chaos.checks.evidence import Missing, StoredEvidence
from chaos.checks.finding import Finding
from chaos.checks.registry import CHECKS
from chaos.checks.verdict import as_json
from chaos.history import BadHistory, History
from chaos.linearizability import check
from sweeps.judge.stored import VIOLATION_FILES, CellEvidence, write_violation
from sweeps.spec.parameters import CheckSettings, Parameters
from sweeps.store.files import WriteFailed
from sweeps.store.reader import read_cell

_ROOM_BYTES = 1 << 30
"""Address space for the program, its libraries and the history itself, beyond what the search may use."""
OUT_OF_MEMORY = "the check needs more memory than checks.memory_limit"


def judge(
    folder: Path, checks: CheckSettings, tell: Callable[[Finding], None] = lambda finding: None
) -> dict[str, Any]:
    """Return the verdict on the cell in a folder, for result.json; `tell` receives each finding as soon as it is made.

    Writes violation.txt and violation.svg there if the history is not linearizable; otherwise removes those of an
    earlier judgement. The finding of a check that raises is unknown, and the other checks continue. Raises OSError and
    ValueError if there is no cell in the folder.
    """
    begin = time.monotonic()
    stored = CellEvidence(folder, checks)
    switches = {"linearizable": checks.linearizable, "invariants": checks.invariants, None: True}
    findings, absent = [], []
    for each in CHECKS:
        finding = _made(each, stored) if switches[each.switch] else None
        if finding is None:
            absent.append(each.name)
        else:
            findings.append(finding)
            tell(finding)
    with contextlib.suppress(Exception):  # checks that read a damaged file already report it
        absent += stored.omitted
    return {**as_json(findings, absent), "seconds": round(time.monotonic() - begin, 3)}


def judge_history(path: Path, checks: CheckSettings) -> dict[str, Any]:
    """Return the verdict on a history in JSON lines: that of the linearizability check alone.

    A violation is written beside the file, and "written" says where. Raises BadHistory.
    """
    found = check(History.read_jsonl(path), time_limit_s=checks.time_limit, memory_limit_bytes=checks.memory_limit)
    detail = "" if found.violation is None else found.violation.as_text()
    verdict = as_json([Finding("linearizability", found.verdict, found.reason, detail)])
    if found.violation is not None:
        files = [path.with_name(f"{path.stem}.{name}") for name in VIOLATION_FILES]
        try:
            write_violation(found.violation, files)
            verdict["written"] = "\n".join(map(str, files))
        except WriteFailed as error:  # the verdict stays violated
            verdict["written"] = str(error)
    return {**verdict, "seconds": round(found.seconds, 3)}


def _made(check: Check, stored: StoredEvidence) -> Finding | None:
    """Return the finding of a check; None if the check does not apply. An error becomes an unknown finding."""
    try:
        return check.find(stored)
    except Missing as missing:
        return Finding(check.name, "unknown", str(missing))
    except MemoryError:
        return Finding(check.name, "unknown", OUT_OF_MEMORY)
    except Exception as error:
        first = next(iter(str(error).splitlines()), "")
        reason = f"the check failed: {type(error).__name__}: {first}"
        return Finding(check.name, "unknown", reason, traceback.format_exc())


def main() -> None:
    """Judge the cell in the folder, or the history in the file, named on the command line, within the given bounds."""
    threading.Thread(target=_end_with_owner, daemon=True).start()
    path, seconds, size = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    resource.setrlimit(resource.RLIMIT_AS, (size + _ROOM_BYTES, size + _ROOM_BYTES))
    bounds = {"time_limit": seconds, "memory_limit": size}

    def tell(finding: Finding) -> None:
        print(json.dumps(asdict(finding)), flush=True)

    if path.is_dir():
        parameters = Parameters.model_validate(read_cell(path).params["parameters"])
        print(json.dumps(judge(path, parameters.checks.model_copy(update=bounds), tell)))
        return
    try:
        print(json.dumps(judge_history(path, CheckSettings().model_copy(update=bounds))))
    except BadHistory as error:
        print(json.dumps({**as_json([]), "bad_history": str(error)}))


def _end_with_owner() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
