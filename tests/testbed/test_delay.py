"""A delay between hosts where the kernel has no netem, by the project's link faults, as a user asks for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from orchestration.testbed.hosts import Testbed
from orchestration.testbed.ray_hosts import RayHosts
from sweeps.api import Run
from tests.testbed.commands import options, sweep

HOSTS = 3
DELAY_MS = 25.0
OPTIONS = (
    "cluster.nodes=3",
    f"chaos=none,{{delay: {DELAY_MS:g}ms}}",
    "load={mode: open, rate: 100, clients: 1024, mix: {put: 1}}",
    "phases.measure=4s",
)


def test_a_delay_between_hosts_is_in_the_latency_of_puts(bed: Testbed, ray: RayHosts, tmp_path: Path) -> None:
    """A put waits for one round trip from the leader to another host."""
    done = sweep(bed, ray, "run", "quick", *options(*OPTIONS), "--out", str(tmp_path))
    assert done.code == 0, done.output + done.errors
    near, far = Run.read(tmp_path / "quick/latest").cells
    for cell in (near, far):
        assert (cell.result["status"], cell.verdict) == ("ok", "ok")
        assert len({place["host"] for place in cell.result["placement"].values()}) == 3
    near_ms, far_ms = (cell.latency("put") / 1e6 for cell in (near, far))
    told = [float(np.median(each)) for each in (near_ms, far_ms)]
    print(f"median of puts: {told[0]:.1f} ms, with a delay of {DELAY_MS:g} ms {told[1]:.1f} ms")
    assert np.percentile(far_ms, 5) > 2 * DELAY_MS, "the first ones may come before the fault"
    assert 1.8 * DELAY_MS < told[1] - told[0] < 4 * DELAY_MS
