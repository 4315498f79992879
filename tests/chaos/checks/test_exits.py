"""Nodes that exited unexpectedly."""

from __future__ import annotations

from chaos.checks.exits import judge_exits


def test_what_the_end_of_a_node_says() -> None:
    assert judge_exits([]).verdict == "ok"
    assert judge_exits([(-9, "n1 was killed")]).verdict == "unknown"
    for code in (5, 7):
        finding = judge_exits([(-9, "n1 was killed"), (code, "n2: two leaders")])
        assert (finding.verdict, finding.reason) == ("violated", "n2: two leaders")
