"""Ray on the hosts of a testbed, started as by hand: `ray start` on each host."""

from __future__ import annotations

import json
import os
import secrets
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from orchestration.testbed.hosts import ROOT, NamespaceHost, Testbed

_RAY = (
    sys.executable,
    "-m",
    "ray.scripts.scripts",
    "start",
    "--disable-usage-stats",
    "--object-store-memory=100000000",
)
_START_TIMEOUT_S = 60.0
_SETTINGS = {
    # By default nodes would run at a lower priority than other processes, and actors would start one after the other.
    "worker_niceness": 0,
    "worker_maximum_startup_concurrency": 32,
    # Ray declares a silent host dead after about 10 s; by default it takes about a minute.
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 5,
}
_PORT = 6379
"""Port of Ray's head; always free, because no other program uses the testbed's hosts."""


@dataclass(frozen=True)
class RayHosts:
    """A Ray cluster over a testbed. The head offers no CPU, so nothing is placed there."""

    address: str
    """Address of Ray's head, for `sweep run --address`."""
    env: dict[str, str]
    """Environment variables that a program on a host needs to use this Ray."""

    def join(self, host: NamespaceHost) -> None:
        """Start Ray on a host, with one CPU. Raises TestbedError."""
        self._start(host, f"--address={self.address}", "--num-cpus=1")

    def head(self, host: NamespaceHost) -> None:
        """Start Ray's head on a host. Raises TestbedError."""
        settings = f"--system-config={json.dumps(_SETTINGS)}"
        self._start(host, "--head", f"--port={_PORT}", "--num-cpus=0", "--include-dashboard=false", settings)

    def _start(self, host: NamespaceHost, *words: str) -> None:
        host.run(*_RAY, f"--node-ip-address={host.address}", *words, env=self.env, timeout_s=_START_TIMEOUT_S)


def start_ray(testbed: Testbed) -> RayHosts:
    """Start Ray on all hosts; it ends with the hosts. Raises TestbedError."""
    env = {
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    }
    ray = RayHosts(f"{testbed.head.address}:{_PORT}", env)
    ray.head(testbed.head)
    with ThreadPoolExecutor() as executor:
        list(executor.map(ray.join, testbed.hosts))
    return ray
