"""The findings of an examination of hosts: each rule on its own, the words, the exit codes."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from orchestration import InfrastructureError, RayBackend
from orchestration.ray_cluster.doctor import Connection, DeadHost, Durations, Examination
from sweeps import cli
from sweeps.show import doctor
from sweeps.show.doctor import as_json, exit_code, findings
from tests.sweeps.examinations import CODE, FIRST, MS, RAY, SECOND, THIRD, examination, host


def test_nothing_is_found_where_all_is_well() -> None:
    assert findings(examination(host(), host(SECOND), host(THIRD))) == []
    assert exit_code([]) == 0


def slow(milliseconds: float, late: float | None = None) -> Durations:
    """980 samples of one time, and 20 of another."""
    return Durations([int(milliseconds * MS)] * 980 + [int((late or milliseconds) * MS)] * 20)


HOSTS: list[tuple[dict[str, Any], str, str, str]] = [
    ({"error": "did not start an actor within 20 s"}, "wrong", "did not start an actor within 20 s", "ray stop"),
    ({"error": "no actor: the class ObjectHost failed to import"}, "wrong", "failed to import", "the same wheel there"),
    ({"error": "No module named 'sweeps'"}, "wrong", "No module named 'sweeps'", "install the same wheel there"),
    ({"code": replace(CODE, digest="ba9876543210", folder="/old")}, "wrong",
     "other code than the driver's: ba9876543210 in /old, not 0123456789ab in /code", "install the same wheel"),
    ({"code": replace(CODE, versions=CODE.versions | {"ray": "2.59.0", "numpy": None})}, "wrong",
     "other versions than the driver's: ray 2.59.0, not 2.60.0; numpy is missing, not 2.4.6", "install the same"),
    ({"open_files": 256}, "wrong", "a process may open 256 files; a run needs 1024", "ulimit -n"),
    ({"cpus_available": 1.5}, "note", "1.5 of 4 cores may be used", "ray start --num-cpus"),
    ({"load": 4.2}, "note", "4.2 processes shared its 4 CPUs", "end other programs there"),
    ({"niceness": 15}, "note", "runs with niceness 15", "worker_niceness"),
    ({"folder": "/data", "storage_error": "Permission denied"}, "wrong",
     "the logs' folder /data: Permission denied", "set storage.dir"),
    ({"file_system": "nfs4", "lacks": ("locks on directories (flock): Bad file descriptor",)}, "wrong",
     "is on a file system (nfs4) without locks on directories (flock): Bad file descriptor: nodes refuse it",
     "to a folder on a local disk"),
    ({"file_system": "tmpfs"}, "wrong", "/var/tmp/raft-lab-0 is in memory (tmpfs)", "to a folder on a disk"),
    ({"free_bytes": 2**29}, "wrong", "has 512 MiB free; a run needs 1.0 GiB", "make room"),
    ({"fsync": slow(0.002)}, "note", "takes 0.002 ms, less than on any disk", "switched off"),
    ({"fsync": slow(16)}, "note", "an fsync takes 16 ms", "a faster disk"),
    ({"fsync": slow(1, late=51)}, "note", "one fsync in a hundred takes 51 ms", "what else uses this disk"),
    ({"same_clock": False, "clock_error_ns": 6 * MS}, "note", "is known only within 6 ms", "run the driver closer"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "severity", "what", "todo"), HOSTS, ids=[row[2][:30] for row in HOSTS])
def test_one_thing_about_a_host(changes: dict[str, Any], severity: str, what: str, todo: str) -> None:
    [finding] = findings(examination(host(), host(SECOND, **changes)))
    assert (finding.severity, finding.host) == (severity, SECOND)
    assert what in finding.what
    assert todo in finding.todo
    assert exit_code([finding]) == (severity == "wrong")


@pytest.mark.parametrize(
    "changes",
    [
        {"open_files": 1024},
        {"load": 3.9},
        {"fsync": slow(15)},
        {"fsync": slow(1, late=50)},
        {"fsync": Durations([MS] * 500 + [80 * MS] * 400)},  # too few samples for that percentile
        {"fsync": slow(0.005)},
        {"clock_error_ns": 5 * MS, "same_clock": False},
        {"code": replace(CODE, versions=CODE.versions | {"raft-lab": None}, folder="/elsewhere")},
        {"free_bytes": 2**30},
        {"machine": None, "storage": None},
    ],
    ids="-".join,
)
def test_just_not_a_finding(changes: dict[str, Any]) -> None:
    assert findings(examination(host(), host(SECOND, **changes))) == []


def test_a_memory_file_system_is_quick_and_that_is_not_said_twice() -> None:
    [finding] = findings(examination(host(file_system="tmpfs", fsync=slow(0.001))))
    assert "tmpfs" in finding.what


def ways(*broken: tuple[str, str]) -> list[Connection]:
    hosts = (FIRST, SECOND, THIRD)
    return [
        Connection(a, b, error="timed out") if (a, b) in broken else Connection(a, b, Durations([MS] * 100))
        for a in hosts
        for b in hosts
        if a != b
    ]


def test_a_port_that_cannot_be_reached_names_both_hosts() -> None:
    [finding] = findings(examination(host(), host(SECOND), host(THIRD), links=ways((SECOND, THIRD))))
    assert finding == (
        "wrong",
        "10.0.0.2 -> 10.0.0.3",
        "no connection to an ephemeral port: timed out",
        "allow 10.0.0.2 to reach TCP ports 32768 to 60999 of 10.0.0.3 (firewall, routes)",
    )


def test_what_is_cut_both_ways_is_one_finding() -> None:
    broken = ways((SECOND, THIRD), (THIRD, SECOND), (SECOND, FIRST))
    found = findings(examination(host(), host(SECOND), host(THIRD, machine=None), links=broken))
    assert [(each.host, "in either direction" in each.what) for each in found] == [
        ("10.0.0.2 -> 10.0.0.1", False),
        ("10.0.0.2 <-> 10.0.0.3", True),
    ]
    assert found[1].what.endswith("in either direction: timed out")
    assert "the ephemeral TCP ports of 10.0.0.3, and the reverse" in found[1].todo


def test_slow_ways_are_noted_once() -> None:
    links = [Connection(FIRST, SECOND, slow(16)), Connection(SECOND, FIRST, slow(16))]
    [finding] = findings(examination(host(), host(SECOND), links=links))
    assert finding.severity == "note"
    assert (finding.host, "16 ms" in finding.what) == ("10.0.0.1 <-> 10.0.0.2", True)


def test_ray_without_authentication_is_noted_unless_it_is_private() -> None:
    bare = replace(RAY, authentication="none")
    [finding] = findings(examination(host(), ray=bare))
    assert (finding.severity, finding.host) == ("note", "Ray")
    assert "RAY_AUTH_MODE=token" in finding.todo
    assert findings(examination(host(), ray=replace(bare, private=True))) == []


def test_hosts_that_ray_has_lost_are_noted() -> None:
    lost = replace(RAY, dead=[DeadHost(THIRD, "vm3", "health check failed"), DeadHost(SECOND, "", "")])
    first, second = findings(examination(host(), ray=lost))
    assert first[:3] == ("note", THIRD, "vm3 was in the cluster and is dead (health check failed)")
    assert "ray start --address=10.0.0.1:41230" in first.todo
    assert second.what == "this host was in the cluster and is dead"


def test_a_cluster_without_cpus_is_wrong() -> None:
    [finding] = findings(examination(host(cpus=0.0)))
    assert finding[:2] == ("wrong", "Ray")


def test_what_is_wrong_comes_first() -> None:
    found = findings(examination(host(load=9.0), host(SECOND, open_files=10)))
    assert [each.severity for each in found] == ["wrong", "note"]


def test_the_manifest_has_figures_and_findings() -> None:
    told = json.loads(json.dumps(as_json(examination(host(), host(SECOND, load=5.0))), allow_nan=False))
    assert told["ray"]["authentication"] == "token"
    assert told["driver"]["digest"] == "0123456789ab"
    second = told["hosts"][1]
    assert (second["address"], second["clock_offset_ns"], second["clock_error_ns"]) == (SECOND, -5 * MS, MS)
    assert second["storage"]["fsync"] == {"count": 1000, "p50_us": 1000.0, "p99_us": 1000.0, "max_us": 1000.0}
    assert second["machine"]["load"] == 5.0
    assert told["round_trips"][0] == {
        "from": FIRST, "to": SECOND, "count": 1000, "p50_us": 200.0, "p99_us": 200.0, "max_us": 200.0, "error": None,
    }  # fmt: skip
    [finding] = told["findings"]
    assert (finding["severity"], finding["host"]) == ("note", SECOND)
    assert set(finding) == {"severity", "host", "what", "todo"}


def test_percentiles_are_told_only_with_samples_above_them() -> None:
    few = Durations(range(100))
    assert (few.ms(0.5), few.ms(0.99), few.ms(1.0)) == (49 / MS, None, 99 / MS)
    assert Durations(range(1000)).ms(0.99) == 989 / MS
    assert Durations().ms(1.0) is None
    assert Durations([MS] * 19).ms(0.5) is None


class Backend:
    """A backend whose examination is set by a test."""

    def __init__(self, found: Examination | None) -> None:
        self.found = found
        self.asked: list[tuple[str, bool]] = []

    async def examine(self, storage_dir: str = "auto", *, quick: bool = False) -> Examination:
        self.asked.append((storage_dir, quick))
        assert self.found is not None
        return self.found

    @contextlib.asynccontextmanager
    async def connect(self) -> AsyncIterator[Backend]:
        if self.found is None:
            raise InfrastructureError("Ray (10.0.0.9:41230): Connection refused")
        yield self


def command(monkeypatch: pytest.MonkeyPatch, found: Examination | None, *words: str) -> tuple[Any, Backend]:
    backend = Backend(found)
    monkeypatch.setattr(RayBackend, "connect", lambda address: backend.connect())
    return CliRunner().invoke(cli.main, ["doctor", *words]), backend


@pytest.mark.parametrize("plain", [True, False])
def test_the_command_says_what_to_do_and_exits_with_1(monkeypatch: pytest.MonkeyPatch, plain: bool) -> None:
    lost = host(THIRD, error="did not start an actor within 20 s", code=None, machine=None, storage=None)
    found = examination(host(), host(SECOND, open_files=99), lost, links=ways((FIRST, SECOND))[:3])
    result, backend = command(monkeypatch, found, "--storage-dir", "/data", *(["--plain"] if plain else []))
    assert result.exit_code == 1, result.output
    assert backend.asked == [("/data", False)]
    for words in (
        "Ray: the cluster at 10.0.0.1:41230; authentication: token",
        "code 0123456789ab, python 3.11.7",
        "10.0.0.1 (driver)",
        "the driver's",
        "-0.005000 s within 1 ms",
        "ext4 (/dev/vda)",
        "64.0 GiB",
        "10.0.0.1 -> 10.0.0.2",
        "1 ms",
        "timed out",
        "did not start an actor within 20 s",
        "a process may open 99 files",
    ):
        assert words in result.stdout, words
    assert all("wrong: " in line for line in result.stdout.splitlines()[-3:]) is plain


@pytest.mark.parametrize(("load", "last"), [(0.0, "all is well"), (8.0, "end other programs there")])
def test_notes_alone_are_exit_code_0(monkeypatch: pytest.MonkeyPatch, load: float, last: str) -> None:
    result, _ = command(monkeypatch, examination(host(load=load)))
    assert result.exit_code == 0
    assert last in result.stdout.splitlines()[-1]


def test_a_ray_that_cannot_be_reached_is_one_line_and_exit_code_1(monkeypatch: pytest.MonkeyPatch) -> None:
    result, _ = command(monkeypatch, None)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == "sweep: Ray (10.0.0.9:41230): Connection refused\n"


def test_sixteen_hosts_fit_beside_one_another() -> None:
    out = io.StringIO()
    console = Console(file=out, width=200)
    console.print(doctor.links_table(examination(*(host(f"10.0.0.{i}") for i in range(1, 17)))))
    head, *rows = out.getvalue().splitlines()
    assert head.split()[-2:] == ["vm15", "vm16"]
    assert len(rows) == 16
    assert max(map(len, rows)) <= 160
