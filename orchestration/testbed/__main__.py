"""A sweep over hosts of a testbed: `python -m orchestration.testbed [--hosts N] sweep PRESET [-o KEY=VALUE ...]`.

The words after `sweep` are passed to `sweep run`, which runs on the head and prints where the results are. The exit
code is that of `sweep run`. It is 1 if the testbed fails, and 130 if it is interrupted before `sweep run` ends.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from orchestration.testbed.hosts import Testbed, TestbedError
from orchestration.testbed.ray_hosts import start_ray

_GRACE_S = 60.0


def sweep(hosts: int, words: Sequence[str], out: Path) -> int:
    """Start the hosts, run the sweep, stop the hosts; return the exit code."""
    begin = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    with Testbed(hosts, shared=[out]) as testbed:  # shared, because the head's private /tmp is deleted with it
        ray = start_ray(testbed)
        addresses = ", ".join(host.address for host in testbed.hosts)
        print(f"testbed: head {ray.address}, hosts {addresses}; up in {time.monotonic() - begin:.1f} s", flush=True)
        command = [sys.executable, "-m", "sweeps.cli", "run", *words, "--out", str(out), "--address", ray.address]
        process = testbed.head.start(*command, env=ray.env, cwd=Path.cwd(), stdout=None, stderr=None)
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)  # the sweep heals faults, stops its nodes and writes its results
            try:
                return process.wait(_GRACE_S)
            except subprocess.TimeoutExpired:
                return 130


def main() -> int:
    """Parse the command line and run the sweep."""
    parser = argparse.ArgumentParser(prog="python -m orchestration.testbed", description=__doc__)
    parser.add_argument("--hosts", type=int, default=4, metavar="N", help="hosts besides the head (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("results"), metavar="PATH", help="for results (%(default)s)")
    parser.add_argument("what", choices=["sweep"])
    arguments, words = parser.parse_known_args()
    # A background program may ignore SIGINT; SIGTERM must clean up in the same way.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        return sweep(arguments.hosts, words, arguments.out)
    except TestbedError as error:
        print(f"testbed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
