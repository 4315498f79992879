"""Ray on the hosts of a testbed, as one starts it by hand on machines: `ray start` on each."""

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
    # Else nodes would yield the CPU to everything else on the machine, and actors start one after the other.
    "worker_niceness": 0,
    "worker_maximum_startup_concurrency": 32,
    # A host that says nothing any more is dead after 10 s; by default Ray believes in it for about a minute.
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 5,
}
_PORT = 6379
"""Of Ray's head; nobody else has a port on a host of ours."""


@dataclass(frozen=True)
class RayHosts:
    """A Ray cluster over a testbed. The head offers no CPU, so nothing is placed there."""

    address: str
    """Of the head, as `sweep run --address` takes it."""
    env: dict[str, str]
    """What a program on one of the hosts needs to use it."""

    def join(self, host: NamespaceHost) -> None:
        """Start Ray on a host, with one CPU. Raises TestbedError."""
        self._start(host, f"--address={self.address}", "--num-cpus=1")

    def head(self, host: NamespaceHost) -> None:
        """Start its head here."""
        settings = f"--system-config={json.dumps(_SETTINGS)}"
        self._start(host, "--head", f"--port={_PORT}", "--num-cpus=0", "--include-dashboard=false", settings)

    def _start(self, host: NamespaceHost, *words: str) -> None:
        host.run(*_RAY, f"--node-ip-address={host.address}", *words, env=self.env, timeout_s=_START_TIMEOUT_S)


def start_ray(testbed: Testbed) -> RayHosts:
    """Start Ray on all hosts. Raises TestbedError. It ends with the hosts."""
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
