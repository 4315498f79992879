"""Run `sweep` on the head of a testbed."""

from __future__ import annotations

import subprocess
import sys
from typing import NamedTuple

from orchestration.testbed.hosts import Testbed
from orchestration.testbed.ray_hosts import RayHosts


class Done(NamedTuple):
    """The exit code and output of a `sweep`."""

    code: int
    output: str
    errors: str


def sweep(testbed: Testbed, ray: RayHosts, *words: str, timeout_s: float = 170.0) -> Done:
    """Run `sweep` on the head until it ends, without a terminal."""
    command = (sys.executable, "-m", "sweeps.cli", *words, "--plain", "--address", ray.address)
    pipe = subprocess.PIPE
    with testbed.head.start(*command, env=ray.env, stdout=pipe, stderr=pipe) as process:
        try:
            output, errors = process.communicate(timeout=timeout_s)
        finally:
            process.kill()
    return Done(process.returncode, output, errors)


def options(*each: str) -> list[str]:
    """Return options as words of a command."""
    return [word for option in each for word in ("-o", option)]
