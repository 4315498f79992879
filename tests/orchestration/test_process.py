"""One node process and its ties to its owner. The programs here are a few lines of standard library."""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import uvloop

from orchestration.errors import NodeFailed
from orchestration.plan import NodeExit
from orchestration.ray_cluster import process as process_module
from orchestration.ray_cluster.process import NodeProcess
from orchestration.ray_cluster.supervised import error_cause
from tests.orchestration.waiting import eventually, gone, state

REPORT = """
import json, os, signal, sys, time
def report(**fields):
    with os.fdopen(int(os.environ["RAFT_REPORT_FD"]), "w") as owner:
        owner.write(json.dumps({"address": "127.0.0.1:4000", "pid": os.getpid(), **fields}) + "\\n")
"""
ECHO = REPORT + "report()\nfor line in sys.stdin: print('got', line, end='', flush=True)"
SLEEP = REPORT + "report()\ntime.sleep(1000)"
STUBBORN = REPORT + "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nreport()\ntime.sleep(1000)"
ORDERLY = REPORT + "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\nreport()\ntime.sleep(1000)"


async def spawn(tmp_path: Path, program: str) -> NodeProcess:
    return await NodeProcess.spawn("n1", [sys.executable, "-c", program], log_file=tmp_path / "n1.log")


async def started(tmp_path: Path, program: str) -> NodeProcess:
    process = await spawn(tmp_path, program)
    await process.report(10.0)
    return process


async def test_report_and_control_lines(tmp_path: Path) -> None:
    process = await spawn(tmp_path, ECHO)
    assert await process.report(10.0) == ("127.0.0.1:4000", process.pid, ("", ""))
    process.send({"addresses": {"n1": {"address": "127.0.0.1:4000", "epoch": 1}}})
    log = tmp_path / "n1.log"
    await eventually(lambda: "got" in log.read_text(), "the control line arrives")
    assert json.loads(log.read_text().removeprefix("got ")) == {
        "addresses": {"n1": {"address": "127.0.0.1:4000", "epoch": 1}}
    }
    end = await process.kill()
    assert (end.exit_code, process.running, gone(process.pid)) == (-signal.SIGKILL, False, True)
    process.send({"addresses": {}})  # the process has ended: no error


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("import sys; print('disk full', flush=True); sys.exit(6)", "ended before it served: exit code 6 (disk error)"),
        ("import os; os.kill(os.getpid(), 11)", "ended before it served: killed by SIGSEGV"),
        (REPORT + "report(address='here')", "not 'here': the port is missing"),
        (REPORT + "report(address=4000)\ntime.sleep(1000)", "[::1]:41233, not 4000"),
        ("import os; os.write(int(os.environ['RAFT_REPORT_FD']), b'[]\\n')", "its report is malformed: not an object"),
        ("import os; os.write(int(os.environ['RAFT_REPORT_FD']), b'}\\n')", "its report is malformed: Expecting value"),
        (
            "import os, time; os.close(int(os.environ['RAFT_REPORT_FD'])); time.sleep(1000)",
            "closed $RAFT_REPORT_FD without reporting its address",
        ),
    ],
)
async def test_failed_start_says_why(tmp_path: Path, program: str, reason: str) -> None:
    process = await spawn(tmp_path, program)
    with pytest.raises(NodeFailed) as failure:
        await process.report(10.0)
    assert reason in str(failure.value)
    assert failure.value.log_tail == process_module.tail_of(tmp_path / "n1.log")
    assert gone(process.pid)


async def test_one_that_has_reported_and_ended_has_not_started(tmp_path: Path) -> None:
    process = await spawn(tmp_path, REPORT + "report()")
    await process.wait()
    with pytest.raises(NodeFailed, match="ended before it served: exit code 0"):
        await process.report(10.0)


async def test_what_is_wrong_with_a_report_is_told_also_of_one_that_has_ended(tmp_path: Path) -> None:
    process = await spawn(tmp_path, REPORT + "report(address='here')")
    await asyncio.wait((process._reported, process._exited))
    with pytest.raises(NodeFailed, match="its report is malformed: address"):
        await process.report(10.0)


async def test_silent_program_is_killed_after_its_time(tmp_path: Path) -> None:
    process = await spawn(tmp_path, "print('thinking', flush=True); import time; time.sleep(1000)")
    await eventually((tmp_path / "n1.log").read_text, "it runs")
    with pytest.raises(NodeFailed, match=r"n1: did not report its address within 0.1 s: thinking\n    thinking"):
        await process.report(0.1)
    assert gone(process.pid)


async def test_start_that_is_given_up_leaves_nothing(tmp_path: Path) -> None:
    process = await spawn(tmp_path, "import time; time.sleep(1000)")
    waiting = asyncio.create_task(process.report(100.0))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert (await process.wait()).exit_code == -signal.SIGKILL


async def test_command_that_does_not_exist(tmp_path: Path) -> None:
    process = await NodeProcess.spawn("n1", ["no-such-program"], log_file=tmp_path / "n1.log")
    with pytest.raises(NodeFailed, match=r"exit code 127 \(command not found\): .*no-such-program: No such file"):
        await process.report(10.0)


async def test_log_is_kept_over_lives_and_its_tail_is_short(tmp_path: Path) -> None:
    for life in range(2):
        process = await spawn(tmp_path, f"for i in range(1000): print({life}, i)")
        end = await process.wait()
    assert end.log_tail.splitlines() == [f"1 {i}" for i in range(980, 1000)]
    assert (tmp_path / "n1.log").read_text().startswith("0 0\n0 1\n")


async def test_the_last_words_are_those_of_the_life_that_ended(tmp_path: Path) -> None:
    await (await spawn(tmp_path, "print('12:00:00.000 CRITICAL n1: of an earlier life')")).wait()
    end = await (await spawn(tmp_path, "print('of this one')")).wait()
    assert end.log_tail == "of this one"


WHY = (
    "12:00:00.123 CRITICAL n1: DiskError: /logs/n1: the disk failed: No space left on device; "
    "the log accepts no more writes"
)
NOTICE = "I0000 00:00:1764.1 12 chttp2_transport.cc:1250] ipv4:127.0.0.1:1: Got goaway [0] err=UNAVAILABLE"


@pytest.mark.parametrize(
    ("tail", "said"),
    [
        (f"12:00:00.001 INFO n1: recovered 0 entries\n{WHY}\n{NOTICE}", WHY),
        (f"raft_actor_node: bind_host: no port\n{NOTICE}\n\n", "raft_actor_node: bind_host: no port"),
        ("words of another program\nits last words\n", "its last words"),
        (f"12:00:00.001 WARNING n1: not this\n{NOTICE}", NOTICE),
        ("", ""),
    ],
)
def test_the_line_that_says_why_is_told_first(tail: str, said: str) -> None:
    how = "exit code 6 (disk error)"
    why = f"{how}: {said}" if said else how
    why += "; make room" if said == WHY else ""
    assert str(NodeFailed("n1", f"ended before it served: {how}", 6, tail)).splitlines()[0] == (
        f"node n1: ended before it served: {why}"
    )
    assert str(NodeExit("n1", "exit", 6, tail, 0, "10.0.0.1")) == f"node n1 on host 10.0.0.1 ended (exit): {why}"


async def test_terminate_in_order(tmp_path: Path) -> None:
    process = await started(tmp_path, ORDERLY)
    assert (await process.terminate()).exit_code == 0


async def test_terminate_by_force(tmp_path: Path) -> None:
    process = await started(tmp_path, STUBBORN)
    assert (await process.terminate(grace_s=0.2)).exit_code == -signal.SIGKILL


async def test_terminate_a_paused_process(tmp_path: Path) -> None:
    process = await started(tmp_path, ORDERLY)
    await process.pause()
    assert (await process.terminate()).exit_code == 0


async def test_pause_and_resume(tmp_path: Path) -> None:
    process = await started(tmp_path, ECHO)
    await process.pause()
    assert state(process.pid) == "T"
    process.send({"addresses": {}})
    process.resume()
    await eventually(lambda: "got" in (tmp_path / "n1.log").read_text(), "it goes on where it was")
    await process.kill()
    assert process.send_signal(signal.SIGSTOP) > 0  # the process has ended: no error


async def test_what_a_program_started_goes_with_it(tmp_path: Path) -> None:
    process = await spawn(
        tmp_path,
        REPORT + "import subprocess\nchild = subprocess.Popen(['sleep', '1000'])\nreport(pid=child.pid)\nchild.wait()",
    )
    child = (await process.report(10.0)).pid
    await process.pause()
    await eventually(lambda: state(child) == "T", "the child is paused, too")
    await process.kill()
    await eventually(lambda: gone(child), "the child is gone, too")


async def test_session_and_signal_mask(tmp_path: Path) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # as in Ray's workers
    try:
        process = await started(tmp_path, SLEEP)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    with open(f"/proc/{process.pid}/status") as status:  # noqa: ASYNC230, PTH123 - not a disk
        assert "SigBlk:\t0000000000000000\n" in list(status)
    assert os.getsid(process.pid) == process.pid  # Ctrl-C in a terminal does not reach it
    await process.kill()


def test_in_a_thread_with_uvloop(tmp_path: Path) -> None:
    """As in Ray's actors."""

    async def life() -> int:
        process = await started(tmp_path, ORDERLY)
        process.send({"addresses": {}})
        return (await process.terminate()).exit_code

    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        assert executor.submit(uvloop.run, life()).result(20) == 0


OWNER = """
import asyncio, sys
from pathlib import Path
from orchestration.ray_cluster.process import NodeProcess
async def main():
    process = await NodeProcess.spawn("n1", [sys.executable, "-c", sys.argv[2]], log_file=Path(sys.argv[1], "n1.log"))
    await process.report(10.0)
    if sys.argv[3] == "paused":
        await process.pause()
    print(process.pid, flush=True)
    await process.wait()
asyncio.run(main())
"""


@pytest.mark.parametrize("mode", ["running", "paused"])
async def test_sigkill_of_the_owner(tmp_path: Path, mode: str) -> None:
    """Not even a program that ignores its lifeline and SIGTERM outlives its owner."""
    owner = subprocess.Popen([sys.executable, "-c", OWNER, tmp_path, STUBBORN, mode], stdout=subprocess.PIPE)  # noqa: ASYNC220
    assert owner.stdout is not None
    pid = int(await asyncio.to_thread(owner.stdout.readline))
    assert not gone(pid)
    assert (state(pid) == "T") == (mode == "paused")
    owner.kill()
    await eventually(lambda: gone(pid), "the node is gone")
    await asyncio.to_thread(owner.communicate)


def test_owner_that_is_gone_before_the_start(tmp_path: Path) -> None:
    """The kernel signals a parent's death only to processes that asked for it before."""
    shim = Path(process_module.__file__).with_name("shim.py")
    mark = tmp_path / "ran"
    result = subprocess.run([sys.executable, "-I", "-S", shim, "1", "touch", mark], capture_output=True, check=False)
    assert b"the owner was gone" in result.stderr
    assert not mark.exists()


@pytest.mark.parametrize(
    ("tail", "cause"),
    [
        ("wal.log: cannot be written: No space left on device (injected on write)", "fault"),
        ("wal.log: cannot be synced: an fsync still hung when the node stopped (injected stall)", "fault"),
        ("trace_file: cannot be written: No space left on device", "exit"),
        ("the disk did not answer within 3 s while the node was stopping", "exit"),
    ],
)
def test_an_error_is_the_effect_of_a_fault_only_if_it_says_so(tail: str, cause: str) -> None:
    """A stall that was healed explains no later exit with the same code."""
    assert error_cause(6, tail, {6}) == cause
    assert error_cause(6, tail, set()) == "exit", "no fault in this incarnation"
    assert error_cause(7, tail, {6}) == "exit"
