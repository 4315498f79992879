"""The meaning of verdicts: against expectations, for exit codes, in tables; and when cells are judged."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from chaos.checks.finding import Finding
from chaos.checks.registry import CHECKS
from chaos.checks.verdict import as_json
from chaos.faults import FAULTS
from sweeps.analysis.events import faults_of
from sweeps.judge.expectations import exit_code, pending, unjudged, with_verdict
from sweeps.show.formats import verdict
from sweeps.store.reader import read_run
from tests.sweeps.conftest import FakeJudge
from tests.sweeps.fakes import FakeBackend, FakeCluster, VirtualBackend
from tests.sweeps.run.test_runner import BRIEF, CRASH, TWO_CELLS, execute, execute_virtually, journal, sweep

ALL = tuple(check.name for check in CHECKS)


def verdict_with(**verdicts: Any) -> dict[str, Any]:
    """A verdict in which all checks except these are ok."""
    found: dict[str, Any] = {**dict.fromkeys(ALL, "ok"), **verdicts}
    return as_json([Finding(check, word, "why") for check, word in found.items()])


OK = verdict_with()
VIOLATED = verdict_with(linearizability="violated")
UNKNOWN = verdict_with(coverage="unknown")
SLOW = verdict_with(liveness="violated")
UNDECIDED = verdict_with(linearizability="unknown")
FAILED = unjudged("ended with -9")


@pytest.mark.parametrize(
    ("expect", "found", "status", "code"),
    [
        ("ok", OK, "ok", 0),
        ("ok", VIOLATED, "ok", 3),
        ("ok", UNKNOWN, "ok", 4),
        ("ok", pending("deferred"), "ok", 4),
        ("available", OK, "ok", 0),
        ("available", UNKNOWN, "ok", 4),
        ("unavailable", OK, "ok", 0),
        ("unavailable", VIOLATED, "ok", 3),
        ("unavailable", UNKNOWN, "ok", 4),
        ("safe", OK, "ok", 0),
        ("safe", UNKNOWN, "ok", 0),
        ("safe", VIOLATED, "ok", 3),
        ("unknown", UNKNOWN, "ok", 0),
        ("unknown", OK, "failed", 1),
        ("unknown", VIOLATED, "ok", 3),
        ("violated", VIOLATED, "ok", 0),
        ("violated", OK, "failed", 1),
        ("violated", UNKNOWN, "failed", 1),
        # A control expects a violation of safety, not just any violation; and it must show that the load was served.
        ("violated", SLOW, "ok", 3),
        ("violated", verdict_with(linearizability="violated", liveness="violated"), "ok", 0),
        ("violated", verdict_with(linearizability="violated", coverage="unknown"), "ok", 3),
        ("violated", verdict_with(exits="violated"), "ok", 0),
        # `safe` tolerates an unknown coverage, but no decisive check without a result.
        ("safe", UNDECIDED, "ok", 4),
        ("safe", verdict_with(invariants="unknown"), "ok", 4),
        ("safe", verdict_with(state="unknown", coverage="unknown"), "ok", 0),
        ("safe", as_json([Finding("invariants", "ok", ""), Finding("coverage", "unknown", "")]), "ok", 4),
        ("safe", SLOW, "ok", 3),
        ("unknown", UNDECIDED, "ok", 4),
        ("unknown", verdict_with(coverage="unknown", state="unknown"), "ok", 4),
        ("unknown", FAILED, "ok", 4),
        ("safe", FAILED, "ok", 4),
        ("safe", unjudged("", [Finding(check, "ok", "") for check in ALL]), "ok", 4),
        ("violated", FAILED, "failed", 1),
        ("safe", unjudged("", [Finding("linearizability", "violated", "")]), "ok", 3),
    ],
)
def test_only_what_is_unexpected_counts(expect: str, found: dict[str, Any], status: str, code: int) -> None:
    result = with_verdict({"status": "ok", "reason": None}, found, expect)
    assert (result["status"], exit_code([result])) == (status, code)


def test_an_expected_violation_that_was_not_found_says_so() -> None:
    result = with_verdict({"status": "ok", "reason": None}, UNKNOWN, "violated")
    assert result["verdict"]["reason"] == ("expected the verdict violated, and it is unknown (coverage: why)")


def test_another_violation_or_unknown_than_the_expected_one_says_so() -> None:
    for expect, found, reason in (
        ("violated", SLOW, "expected a violation of safety under load and faults, and found liveness: why"),
        ("unknown", UNDECIDED, "expected a lack of coverage alone, and found linearizability: why"),
    ):
        assert with_verdict({"status": "ok", "reason": None}, found, expect)["verdict"]["reason"] == reason


def test_a_control_that_served_nobody_is_not_met() -> None:
    nobody = {"status": "failed", "reason": "no operation succeeded"}
    assert with_verdict(nobody, SLOW, "violated")["status"] == "failed"
    assert with_verdict(nobody, verdict_with(state="violated", coverage="unknown"), "violated")["status"] == "failed"


def test_a_later_verdict_takes_the_place_of_the_earlier_one() -> None:
    missed = with_verdict({"status": "ok", "reason": None}, OK, "violated")
    assert with_verdict(missed, VIOLATED, "violated")["status"] == "ok"
    failed = {"status": "failed", "reason": "threshold ok: 3 is not > 5"}
    assert with_verdict(failed, OK, "ok")["status"] == "failed"
    stopped = with_verdict({"status": "interrupted", "reason": "interrupted"}, OK, "ok")
    assert (stopped["status"], exit_code([stopped])) == ("interrupted", 4)


def test_a_violation_goes_before_a_failure_and_that_before_the_unknown() -> None:
    fine, wrong, open_ = (
        with_verdict({"status": "ok", "reason": None}, each, "ok") for each in (OK, VIOLATED, UNKNOWN)
    )
    failed = with_verdict({"status": "failed", "reason": "x"}, OK, "ok")
    assert [exit_code(each) for each in ([], [fine], [fine, open_], [open_, failed], [open_, failed, wrong])] == [
        0, 0, 4, 1, 3,
    ]  # fmt: skip


def test_the_worst_verdict_of_the_repeats_is_shown() -> None:
    assert verdict([("ok", True), ("ok", True)]).plain == "ok"
    assert verdict([("ok", True), ("violated", False), ("unknown", False)]).plain == "1 of 3 violated"
    assert verdict([("violated", True), ("unknown", False)]).plain == "1 of 2 unknown", "a violation was expected"
    assert verdict([]).plain == "-"
    assert verdict([("ok", True)], ["linearizability"]).plain == "ok, not checked: linearizability"


async def test_a_cell_is_judged_when_its_nodes_have_ended_and_before_the_next_one(
    tmp_path: Path, judge: FakeJudge
) -> None:
    backend = FakeBackend()
    seen: list[list[str]] = []

    async def look(folder: Path, checks: Any) -> dict[str, Any]:
        seen.append([cluster.calls[-1] for cluster in backend.clusters])
        return OK

    judge.look = look
    assert (await execute(sweep(), backend, tmp_path))[0] == 0
    assert seen == [["halt"], ["stop keep=False", "halt"]]


@pytest.mark.parametrize(("found", "code", "said"), [(VIOLATED, 3, "VIOLATED"), (UNKNOWN, 4, "UNKNOWN")])
async def test_a_verdict_is_shown_stored_and_decides_the_exit_code(
    tmp_path: Path, judge: FakeJudge, found: dict[str, Any], code: int, said: str
) -> None:
    judge.verdict = found
    exit_code, path, printed = await execute(sweep(), FakeBackend(), tmp_path)
    assert exit_code == code
    stored = read_run(path)
    assert stored.manifest["exit_code"] == code
    assert [cell.result["verdict"]["verdict"] for cell in stored.cells] == [found["verdict"]] * 2
    assert [cell.result["status"] for cell in stored.cells] == ["ok"] * 2
    assert printed.count(f"verdict {said}: {found['reason']}") == 2
    assert printed.count("are kept in /logs/cell") == (2 if found is VIOLATED else 0)
    assert [cell.result.get("kept") for cell in stored.cells] == [["/logs/cell"] if found is VIOLATED else None] * 2
    assert found["verdict"] in (path / "results.csv").read_text().splitlines()[2]


async def test_checks_that_are_deferred_come_after_the_last_cell(tmp_path: Path, judge: FakeJudge) -> None:
    backend = FakeBackend()
    clusters: list[int] = []

    async def look(folder: Path, checks: Any) -> dict[str, Any]:
        clusters.append(len(backend.clusters))
        return UNKNOWN

    judge.look = look
    text = TWO_CELLS.replace("base: {", "base: {checks: {when: defer}, ")
    code, path, printed = await execute(sweep(text), backend, tmp_path)
    assert clusters == [2, 2]
    assert code == 4
    assert [event["event"] for event in journal(path)][-3:] == ["cell judged", "cell judged", "run finished"]
    assert printed.count("verdict pending") == printed.count("verdict UNKNOWN") == 2
    assert [cell.result["verdict"]["verdict"] for cell in read_run(path).cells] == ["unknown"] * 2


async def test_a_run_that_is_interrupted_while_it_judges_keeps_what_was_measured(
    tmp_path: Path, judge: FakeJudge
) -> None:
    judging = asyncio.Event()

    async def look(folder: Path, checks: Any) -> dict[str, Any]:
        judging.set()
        await asyncio.Event().wait()
        return OK

    judge.look = look
    backend = FakeBackend()
    running = asyncio.create_task(execute(sweep(), backend, tmp_path))
    await judging.wait()
    running.cancel()
    code, path, _ = await running
    assert code == 130
    [cell] = read_run(path).cells
    assert (cell.result["status"], cell.result["verdict"]["verdict"]) == ("ok", "pending")
    assert len(cell.operations()) > 0
    assert [cluster.calls for cluster in backend.clusters] == [["halt", "stop keep=False"]]


def test_what_a_check_needs_is_kept(tmp_path: Path) -> None:
    backend = VirtualBackend(lambda cluster: cluster.dropped.update(n1=5, n2=7))
    _, path, _ = execute_virtually(CRASH, backend, tmp_path)
    [cell] = read_run(path).cells
    inspection = cell.inspection()
    assert inspection["aims"] == {"0": "leader"}
    [strike] = [event for event in faults_of(cell.events()) if event.action == "inject"]
    noted = [each for each in inspection["statuses"] if each["node"] == "n1" and each["leads"]][-1]
    assert strike.time_ns <= noted["time_ns"] <= strike.done_ns
    assert {name: count for name, count in noted["touched"].items() if count} == {"dropped": 5}, "noted before its end"
    proofs = {proof.counter for kind in FAULTS.values() for proof in kind.proof}
    assert set(noted["touched"]) == proofs, "what proves that a fault struck"
    assert (noted["leads"], noted["term"], noted["commit_index"], noted["peers"]) == (True, 1, 7, {})
    assert inspection["clocks"]["n3"] == {"offset_ns": 0, "error_ns": 0}
    assert inspection["exits"] == []
    settled = inspection["settled"]
    assert settled["begin_ns"] <= settled["leader_ns"] <= settled["end_ns"]
    assert settled["hash_index"] == 7
    assert settled["nodes"]["n2"] == {
        "role": 3, "term": 2, "last_applied": 7,
        "applied_hash": "07", "prefix_hash": "07", "state_hash": b"state".hex(),
    }  # fmt: skip
    traced = [json.loads(line) for line in cell.traces()["n1"]]
    assert [event["kind"] for event in traced].count("commit") == 2, "of the whole trace nothing is left out"


async def test_the_states_are_compared_where_all_nodes_have_come_to(tmp_path: Path) -> None:
    class Behind(FakeCluster):
        async def status(self, node_id: str, **request: Any) -> Any:
            self.applied["n3"] = min(self.applied["n3"] + 1, 7)
            return await super().status(node_id, **request)

    def prepare(cluster: FakeCluster) -> None:
        cluster.__class__ = Behind
        cluster.applied["n3"] = 0

    backend = FakeBackend(prepare)
    _, path, _ = await execute(sweep(f"name: tiny\nbase: {{phases: {BRIEF}}}"), backend, tmp_path)
    assert read_run(path).cells[0].inspection()["settled"]["hash_index"] == 7, "it is waited for"
