"""One node process: started, tied to its owner, watched, signalled. Uses only asyncio and the operating system.

After a SIGKILL the owner cannot clean up. So three mechanisms tie the process to its owner:

* The kernel kills the process when the thread that started it ends (PR_SET_PDEATHSIG, set by shim.py). This works
  for foreign programs and for stopped processes too. The starting thread must therefore run as long as the owner,
  as the thread of the event loop does.
* Its standard input is a pipe whose other end only the owner holds; end-of-file means that the owner is gone.
* It leads its own session. Ctrl-C in a terminal reaches only the owner, which then shuts the process down.

The pipe is also the control channel: JSON lines from the owner to the node.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from orchestration.errors import NodeFailed, describe_exit
from raft_actor_node.addresses import checked_address
from raft_actor_node.origin import Origin
from raft_actor_node.patience import Patience
from raft_actor_node.text import printable

REPORT_FD_VARIABLE = "RAFT_REPORT_FD"
"""Environment variable with the descriptor on which a node reports its address once it is ready to serve."""

_SHIM = Path(__file__).with_name("shim.py")
_TAIL_LINES = 20
_TAIL_BYTES = 4096
_STOP_TIMEOUT_S = 5.0


class NodeReport(NamedTuple):
    """The report of a node that is ready."""

    address: str
    """The host:port at which the node can be reached."""
    pid: int
    code: Origin = Origin("", "")
    """The code that it runs; foreign programs may leave it out."""


class Exit(NamedTuple):
    """How a process ended."""

    exit_code: int
    """As in `subprocess`: negative for a signal."""
    log_tail: str
    """The last lines that this process logged."""
    time_ns: int
    """When the exit was noticed, on the monotonic clock of the host."""


def tail_of(path: Path, begin: int = 0) -> str:
    """Return the last lines of a file after an offset; empty when it cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(max(begin, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(map(printable, lines[-_TAIL_LINES:]))


class NodeProcess:
    """A node process. Created by `spawn`; its methods must be called on the same event loop."""

    def __init__(self, node_id: str, popen: subprocess.Popen[bytes], log_file: Path, log_begin: int) -> None:
        self.node_id = node_id
        self.pid = popen.pid
        self._popen = popen
        self._log_file, self._log_begin = log_file, log_begin
        # The child is not reaped yet, so the pid is still its own; the pidfd never refers to another process.
        self._pidfd = os.pidfd_open(popen.pid)
        self._loop = asyncio.get_running_loop()
        self._exited: asyncio.Future[Exit] = self._loop.create_future()
        self._reported: asyncio.Future[bytes] = self._loop.create_future()
        self._control: asyncio.WriteTransport | None = None
        self._loop.add_reader(self._pidfd, self._on_exit)

    @classmethod
    async def spawn(
        cls,
        node_id: str,
        command: Sequence[str],
        *,
        log_file: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> NodeProcess:
        """Start `command`; its standard output and error are appended to `log_file`. Raises OSError.

        A command that cannot be executed exits with code 126 or 127, as in a shell.
        """
        read_fd, write_fd = os.pipe()
        try:
            with log_file.open("ab") as log:
                log_begin = log.tell()
                popen = subprocess.Popen(  # noqa: ASYNC220 - must run in this thread (see the module); takes 1 ms
                    [sys.executable, "-I", "-S", str(_SHIM), str(os.getpid()), *command],
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    env={**(os.environ if env is None else env), REPORT_FD_VARIABLE: str(write_fd)},
                    cwd=cwd,
                    pass_fds=(write_fd,),
                    start_new_session=True,
                )
        except BaseException:
            os.close(read_fd)
            raise
        finally:
            os.close(write_fd)
        process = cls(node_id, popen, log_file, log_begin)
        process._read_report(read_fd)
        await process._open_control(cast(IO[bytes], popen.stdin))
        return process

    @property
    def running(self) -> bool:
        """Whether the process runs: true until its exit was noticed."""
        return not self._exited.done()

    async def report(self, timeout_s: float) -> NodeReport:
        """Wait until the node reports its address, for at most `timeout_s`.

        Raises NodeFailed, with the end of the log, if the node exits, sends no report in time, or sends a malformed
        one. The process is then dead.
        """
        try:
            with contextlib.suppress(TimeoutError):
                async with Patience(timeout_s):
                    await asyncio.wait((self._reported, self._exited), return_when=asyncio.FIRST_COMPLETED)
            if self._reported.done() and not self._reported.result():
                # The node closed the pipe without a report. Usually it is exiting, and its exit code says why.
                with contextlib.suppress(TimeoutError):
                    async with Patience(_STOP_TIMEOUT_S):
                        await asyncio.wait((self._exited,))
            if self._reported.done() and self._reported.result():
                report = _parse_report(self._reported.result())
                if self.running:  # a process that reported and then exited is a failure
                    return report
            reason = self._reason_of_silence(timeout_s)
        except ValueError as error:
            reason = f"its report is malformed: {error}"
        except asyncio.CancelledError:
            self.send_signal(signal.SIGKILL)
            raise
        end = await self.kill()
        raise NodeFailed(self.node_id, reason, end.exit_code, end.log_tail)

    def _reason_of_silence(self, timeout_s: float) -> str:
        if self._exited.done():
            return f"ended before it served: {describe_exit(self._exited.result().exit_code)}"
        if self._reported.done():
            return f"closed ${REPORT_FD_VARIABLE} without reporting its address"
        return f"did not report its address within {timeout_s:g} s"

    async def wait(self) -> Exit:
        """Wait until the process exits."""
        return await asyncio.shield(self._exited)

    def send(self, message: Mapping[str, Any]) -> None:
        """Write a JSON line to the control channel, without waiting until the node reads it."""
        if self._control is not None and not self._control.is_closing():
            self._control.write(json.dumps(message, separators=(",", ":")).encode() + b"\n")

    def send_signal(self, number: signal.Signals) -> int:
        """Send a signal to the process and its children; return the time, on the monotonic clock.

        Sends nothing if the process has ended.
        """
        if self.running:
            try:
                # To the whole group, because a script that starts a node must not shield the node from a fault. The
                # pid is not reused, because only _on_exit reaps the process. If other code reaped it, the call with
                # the pidfd fails.
                signal.pidfd_send_signal(self._pidfd, 0)
                os.killpg(self.pid, number)
            except ProcessLookupError:
                pass
        return time.monotonic_ns()

    async def kill(self) -> Exit:
        """Kill the process (SIGKILL) and wait for its exit."""
        self.send_signal(signal.SIGKILL)
        return await self.wait()

    async def terminate(self, grace_s: float = _STOP_TIMEOUT_S) -> Exit:
        """Shut the process down (SIGTERM); kill it if it still runs after `grace_s`."""
        # TERM before CONT: otherwise a stopped process would work normally for a moment after CONT.
        self.send_signal(signal.SIGTERM)
        self.send_signal(signal.SIGCONT)
        try:
            async with Patience(grace_s):
                return await self.wait()
        except TimeoutError:
            return await self.kill()

    async def pause(self) -> int:
        """Stop the process (SIGSTOP); return when it was seen stopped, on the monotonic clock."""
        self.send_signal(signal.SIGSTOP)
        async with Patience(_STOP_TIMEOUT_S, interrupt=False) as patience:
            while self.running and self._state() != "T":
                if patience.over:
                    raise NodeFailed(self.node_id, f"did not stop within {_STOP_TIMEOUT_S:g} s of SIGSTOP")
                await asyncio.sleep(0.001)
        return time.monotonic_ns()

    def resume(self) -> int:
        """Resume the process (SIGCONT); return when the signal was sent, on the monotonic clock."""
        return self.send_signal(signal.SIGCONT)

    def _state(self) -> str:
        try:
            stat = Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
        # proc(5): the command name is in parentheses and may contain any character.
        return stat.rpartition(")")[2].split()[0]

    async def _open_control(self, pipe: IO[bytes]) -> None:
        transport, _ = await self._loop.connect_write_pipe(asyncio.BaseProtocol, pipe)
        self._control = transport

    def _read_report(self, fd: int) -> None:
        received = bytearray()

        def on_readable() -> None:
            chunk = os.read(fd, 4096)
            received.extend(chunk)
            if chunk and b"\n" not in chunk:
                return
            self._loop.remove_reader(fd)
            os.close(fd)
            line, newline, _ = bytes(received).partition(b"\n")
            self._reported.set_result(line if newline else b"")

        self._loop.add_reader(fd, on_readable)

    def _on_exit(self) -> None:
        self._loop.remove_reader(self._pidfd)
        # Kill the remaining children. The process is a zombie until it is reaped below, so its process group cannot be
        # reused yet.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        exit_code = self._popen.wait()
        os.close(self._pidfd)
        if self._control is not None and not self._control.is_closing():
            self._control.abort()
        tail = tail_of(self._log_file, self._log_begin)
        self._exited.set_result(Exit(exit_code, tail, time.monotonic_ns()))


def _parse_report(line: bytes) -> NodeReport:
    report = json.loads(line)
    if not isinstance(report, dict):
        raise ValueError(f"not an object: {line[:80]!r}")
    try:
        address = checked_address(report.get("address"))
    except ValueError as error:
        raise ValueError(f"address: {error}") from None
    pid = report.get("pid", 0)
    return NodeReport(address, pid if isinstance(pid, int) else 0, _parse_origin(report.get("code")))


def _parse_origin(code: Any) -> Origin:
    match code:
        case [str(digest), str(place)]:
            return Origin(digest, place)
    return Origin("", "")
