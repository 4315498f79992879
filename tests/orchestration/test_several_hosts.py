"""Placement on a Ray cluster of several Ray nodes. They are on one machine; tests/testbed has hosts with addresses."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestration.ray_cluster.guard import clean_up
from tests.remains import short_folder

pytestmark = pytest.mark.timeout(300)  # the first of these tests waits for the whole program

PROGRAM = str(Path(__file__).with_name("several_hosts.py"))
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def told() -> Iterator[dict[str, Any]]:
    """The output of the program."""
    folder = short_folder()
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    process = subprocess.Popen(
        [sys.executable, PROGRAM, str(folder)], env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        output, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
        yield json.loads(output.splitlines()[-1])
    finally:
        process.kill()
        process.wait()
        clean_up(f"{folder}/ray")
        shutil.rmtree(folder, ignore_errors=True)


def test_ray_nodes_of_one_machine_are_told_apart(told: dict[str, Any]) -> None:
    assert len(told["hosts"]) == 3
    assert len({address for address, *_ in told["hosts"]}) == 1
    assert sorted((cpus, driver) for _, _, cpus, driver in told["hosts"]) == [(0, True), (1, False), (1, False)]
    assert all(name == os.uname().nodename for _, name, _, _ in told["hosts"])


@pytest.mark.parametrize(("placement", "shares"), [("spread", [2, 1]), ("pack", [2])])
def test_actors_are_where_they_were_to_be(told: dict[str, Any], placement: str, shares: list[int]) -> None:
    assert all(wanted == found for wanted, found in told[placement])
    assert sorted(Counter(found for _, found in told[placement]).values(), reverse=True) == shares
    if placement == "spread":
        assert [wanted for wanted, _ in told["spread"]] == told["checked"]


def test_an_object_is_on_the_drivers_host_although_it_offers_no_cpu_or_where_one_wants_it(told: dict[str, Any]) -> None:
    for name in ("default", "other"):
        wanted, found = told["hosted"][name]
        assert found == wanted
        first, again = told["hosted"][f"{name} again"]
        assert again == first, "the actor is used again"
    assert told["hosted"]["default"] != told["hosted"]["other"]


def test_too_few_hosts_are_refused_at_once(told: dict[str, Any]) -> None:
    refused = told["too small"]
    assert refused["kind"] == "PlacementRefused"
    assert "strict_spread of 3 nodes needs 3 hosts, there are 2: " in refused["text"]
    assert "without a CPU" in refused["text"]
    assert refused["seconds"] < 15, "it does not wait for CPUs: that would take 30 s"
    assert "the Ray cluster has no host 'x'; its hosts: " in told["unknown host"]["text"]


def test_cpus_that_others_use_are_waited_for_a_while(told: dict[str, Any]) -> None:
    for refused in (told["taken"]["for good"], told["taken"]["for good, at work"]):
        assert refused["kind"] == "PlacementRefused"
        assert "not possible within 1 s" in refused["text"]
        assert "has 0.005 of its 1 CPUs free, needed: 0.01" in refused["text"]
        assert 1 <= refused["seconds"] < 15
    assert told["taken"]["it waits"]
    assert told["taken"]["for a while"]["kind"] == ""


def test_a_sweep_is_refused_in_one_line_before_anything_starts(told: dict[str, Any]) -> None:
    """The sweep is refused although its first cell could run."""
    refused = told["sweep"]
    assert refused["code"] == 2
    assert "[1/" not in refused["output"]
    [line] = refused["errors"].splitlines()
    assert line.startswith("sweep: placement: strict_spread of 3 nodes needs 3 hosts, there are 2: ")


def test_a_host_that_dies_before_its_actors_are_there_is_told(told: dict[str, Any]) -> None:
    died = told["died"]
    assert died["kind"] == "InfrastructureError"
    assert died["text"].endswith(" left the Ray cluster")
    assert died["seconds"] < 60
    assert told["came back"] in {found for _, found in told["with it"]}
    assert all(wanted == found for wanted, found in told["with it"])
