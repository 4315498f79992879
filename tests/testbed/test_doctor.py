"""`sweep doctor` on hosts with their own addresses and clocks finds faults of hosts and of links between them."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from orchestration.host import ephemeral_ports
from orchestration.testbed.hosts import ROOT, NamespaceHost, Testbed
from orchestration.testbed.ray_hosts import RayHosts
from tests.testbed.commands import sweep

EXAMINE = """
import asyncio, json, os, sys
from orchestration import RayBackend
from sweeps.show.doctor import as_json

async def main(address, go):
    async with RayBackend.connect(address) as backend:
        print("connected", flush=True)
        while not os.path.exists(go):
            await asyncio.sleep(0.01)
        print(json.dumps(as_json(await backend.examine(quick=True))))

asyncio.run(main(*sys.argv[1:]))
"""
HOSTS = 3
LONGEST_S = 60.0
"""Time limit of an examination in which a host never answers; every question has a timeout."""
GIVEN_UP_S = 150.0
"""By default Ray takes about a minute to declare a silent host dead."""


def examine(bed: Testbed, ray: RayHosts, go: Path = Path("/"), spoil: Callable[[], None] | None = None) -> Any:
    """Return the doctor's part of a run's manifest. After the connection to Ray, call `spoil`, then create `go`."""
    command = (sys.executable, "-c", EXAMINE, ray.address, str(go))
    process = bed.head.start(*command, env=ray.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "connected\n"
        if spoil is not None:
            spoil()
            go.touch()
        output, errors = process.communicate(timeout=LONGEST_S)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0, errors
    return json.loads(output.splitlines()[-1])  # before that line, Ray may report hosts that it has lost


def wrong(told: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the hosts with their problems."""
    return [(each["host"], each["what"]) for each in told["findings"] if each["severity"] == "wrong"]


@contextlib.contextmanager
def rule(host: NamespaceHost, *words: str) -> Iterator[None]:
    """Block ephemeral TCP ports of a host by a routing rule, as a firewall would."""
    host.run("ip", "rule", "add", *words)
    try:
        yield
    finally:
        host.run("ip", "rule", "del", *words)


def ports() -> str:
    first, last = ephemeral_ports() or (0, 0)
    return f"{first}-{last}"


def test_all_is_well_and_the_offsets_of_the_clocks_are_found(bed: Testbed, ray: RayHosts) -> None:
    told = examine(bed, ray)
    assert wrong(told) == []
    assert told["ray"]["authentication"] == "token"
    assert [host["hostname"] for host in told["hosts"] if host["is_driver"]] == ["head"]
    assert {host["hostname"] for host in told["hosts"]} == {"head", "host1", "host2", "host3"}
    for host in told["hosts"]:
        true_ns = bed.host(host["address"]).clock_offset_ns - bed.head.clock_offset_ns
        assert abs(host["clock_offset_ns"] - true_ns) <= host["clock_error_ns"] < 1e9
        assert host["same_clock"] is host["is_driver"]
        assert host["code"] == told["driver"]
        assert host["machine"]["niceness"] == 0
        assert host["storage"]["fsync"]["count"] > 0
    addresses = [host["address"] for host in told["hosts"]]
    asked = {(way["from"], way["to"]) for way in told["round_trips"] if way["error"] is None and way["p50_us"] > 0}
    assert asked == {(a, b) for a in addresses for b in addresses if a != b}


def test_ports_that_are_blocked_are_found(bed: Testbed, ray: RayHosts) -> None:
    first, second, _ = bed.hosts
    with rule(first, "to", second.address, "ipproto", "tcp", "dport", ports(), "prohibit"):
        [(hosts, what)] = wrong(examine(bed, ray))
    # The first host cannot connect to the second, and its answers to the second go to ephemeral ports too.
    assert hosts == f"{first.address} <-> {second.address}"
    assert what == "no connection to an ephemeral port, in either direction: Permission denied; timed out"


def test_packets_that_vanish_are_found(bed: Testbed, ray: RayHosts) -> None:
    first, second, _ = bed.hosts
    # All packets from an ephemeral port of one host to the other: requests and answers.
    with rule(second, "to", first.address, "ipproto", "tcp", "sport", ports(), "blackhole"):
        [(hosts, what)] = wrong(examine(bed, ray))
    assert hosts == f"{first.address} <-> {second.address}"
    assert what.startswith("no connection to an ephemeral port, in either direction: ")


def test_a_host_with_other_code_is_found(bed: Testbed, ray: RayHosts, tmp_path: Path) -> None:
    changed = tmp_path / "quick.yaml"
    changed.write_text("name: other\n")
    preset = ROOT / "sweeps/presets/quick.yaml"
    second = bed.hosts[1]
    second.run("mount", "--bind", str(changed), str(preset))
    try:
        [(host, what)] = wrong(examine(bed, ray))
    finally:
        second.run("umount", str(preset))
    assert host == second.address
    assert what.startswith("other code than the driver's: ")


def test_the_command_says_that_all_is_well(bed: Testbed, ray: RayHosts) -> None:
    code, output, _ = sweep(bed, ray, "doctor", timeout_s=LONGEST_S)
    assert code == 0, output
    assert "4 hosts" in output
    for host in bed.hosts:
        assert f"name {host.name}; " in output
        assert f"{bed.head.address} -> {host.address}  round trip p50 " in output
    assert "wrong" not in output


def test_a_host_that_is_cut_off_is_found_and_holds_nothing_up(bed: Testbed, ray: RayHosts, tmp_path: Path) -> None:
    """Must be the last test, because Ray does not accept the host again."""
    lost = bed.hosts[2]
    begin = time.monotonic()
    told = examine(bed, ray, tmp_path / "go", lambda: bed.link_down(lost))
    assert time.monotonic() - begin < LONGEST_S
    [(host, _)] = wrong(told)
    assert host == lost.address
    others = {bed.head.address, *(each.address for each in bed.hosts[:2])}
    assert {(way["from"], way["to"]) for way in told["round_trips"]} == {(a, b) for a in others for b in others - {a}}
    while not (dead := examine(bed, ray)["ray"]["dead"]):
        assert time.monotonic() - begin < GIVEN_UP_S, "Ray still believes in it"
    assert [each["address"] for each in dead] == [lost.address]
