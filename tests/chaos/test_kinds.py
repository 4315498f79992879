"""Kinds of faults: what each must declare, and that all code relies on these declarations alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random
from typing import ClassVar, Self

import numpy as np
import pytest

from chaos import BadChaos, ChaosSpec, FaultEvent, Schedule, label, parse_chaos, plan, ran, statuses
from chaos.checks.coverage import Observed, judge_coverage
from chaos.checks.evidence import Load
from chaos.faults import FAULTS, Effect, Fault, Proof, fault_kind, grammar
from chaos.faults.base import Moment, Nodes
from chaos.faults.process import ProcessFault
from chaos.shapes import cut, touching
from raft_actor_node.core.trace import TraceRecord
from raft_actor_node.links import LinkRule
from raft_actor_node.node_faults import DiskFault, NodeFaults
from sweeps.analysis.failover import failovers
from sweeps.spec.parameters import Parameters
from sweeps.spec.rules import longest_outage_s
from tests.chaos.test_monkey import Lab, lab

__all__ = ["lab"]

NODES = ("n1", "n2", "n3", "n4", "n5")


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("kind", FAULTS)
def test_each_kind_is_drawn_resolved_and_written_back(kind: str, seed: int) -> None:
    for n in (2, 3, 5):
        drawn = FAULTS[kind].drawn(NODES[:n], Random(seed))
        assert drawn.kind == kind
        assert drawn.refusal(NODES[:n]) == ""
        assert FAULTS[kind].model_validate(drawn.written) == drawn
        fault = drawn.resolved(NODES[:n], "n1", Random(seed))
        assert fault.ids
        assert set(fault.ids) <= set(NODES[:n])
        assert fault.describe()
        assert fault.effect(NODES[:n])


@pytest.mark.parametrize("kind", FAULTS)
def test_the_grammar_has_a_line_for_each_kind(kind: str) -> None:
    [line] = [line for line in grammar().splitlines() if line.startswith(f"{kind}: {FAULTS[kind].takes} ")]
    assert FAULTS[kind].happens in line
    assert line.endswith(FAULTS[kind].end_key)


def test_a_kind_that_does_not_exist_is_refused_and_not_taken_for_another() -> None:
    with pytest.raises(ValueError, match="'dsk' is no kind of fault"):
        fault_kind("dsk")


class Whole(Fault):
    """Declares everything except `kind`; a class without a kind of its own is not checked."""

    end_key = "heal_after"
    nodes_key = "whole"
    takes = "NODES"
    happens = "nothing is left out"
    proof: ClassVar[tuple[Proof, ...]] = ()
    ends_leadership = "never"
    silences = False
    needs = "pauses"
    begins_life = "never"
    disables: ClassVar[bool] = False
    exit_code: ClassVar[None] = None

    whole: Nodes
    heal_after: Moment | None = None

    def effect(self, nodes: Sequence[str], *, preparing: bool = False) -> Effect:
        return Effect(links=[LinkRule(from_id="n1", to_id="n2", cut=True)])

    @classmethod
    def drawn(cls, nodes: Sequence[str], rng: Random) -> Self:
        return cls(whole=tuple(nodes))

    def describe(self) -> str:
        return "whole"


DECLARED = ("end_key", "takes", "happens", "needs", "proof", "ends_leadership", "silences", "begins_life")
IMPLEMENTED = ("effect", "drawn", "describe", "disables", "exit_code")


@pytest.mark.parametrize("name", [*DECLARED, *IMPLEMENTED])
def test_a_kind_that_leaves_a_declaration_out_is_an_error_where_it_is_defined(name: str) -> None:
    body = {key: vars(Whole)[key] for key in (*DECLARED, *IMPLEMENTED, "nodes_key") if key != name}
    annotations = {"whole": Nodes, "heal_after": Moment | None}
    annotations |= {key: ClassVar for key in ("disables", "exit_code") if key != name}
    body |= {"__module__": __name__, "__annotations__": annotations, "kind": "whole", "heal_after": None}
    with pytest.raises(TypeError, match=f"a kind of fault must declare {name}$"):
        type(Fault)("Partial", (Fault,), body)


def test_a_family_gives_no_kind_its_effect_on_leadership() -> None:
    with pytest.raises(TypeError, match="must declare needs, ends_leadership, begins_life, effect"):

        class Freeze(ProcessFault):
            kind = nodes_key = "freeze"
            end_key = "resume_after"
            happens = "it freezes"

            freeze: Nodes
            resume_after: Moment | None = None


def test_a_fault_without_an_effect_is_refused() -> None:
    with pytest.raises(ValueError, match="without an effect"):
        Effect()


# ------------------------------------------------------------------------------ a kind that only this file knows


class Freeze(Fault):
    """Stop a process, cut its links and stall its disk: it uses every part of an effect."""

    kind = nodes_key = "freeze"
    end_key = "thaw_after"
    takes = "NODES"
    happens = "nodes stand still in the cold"
    proof = (Proof("chilled", "message", "chilled"),)
    ends_leadership = "always"
    silences = True
    needs = "pauses"
    begins_life = "never"
    disables: ClassVar[bool] = True
    exit_code: ClassVar[None] = None

    freeze: Nodes
    degrees: int = -1
    thaw_after: Moment | None = None

    def effect(self, nodes: Sequence[str], *, preparing: bool = False) -> Effect:
        return Effect(
            links=cut(touching(self.ids, nodes)),
            inside=dict.fromkeys(self.ids, NodeFaults(disk=DiskFault(stall=True))),
            strike="pause",
            undo="resume",
        )

    @classmethod
    def drawn(cls, nodes: Sequence[str], rng: Random) -> Self:
        return cls(freeze=(rng.choice(nodes),), degrees=-rng.randint(1, 40))

    def describe(self) -> str:
        return f"{self.where_in_words()} at {self.degrees} degrees"


@pytest.fixture
def freezing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Register the kind, and rebuild the models that list all kinds; afterwards restore them."""

    def rebuild() -> None:
        for model in (ChaosSpec, Schedule, FaultEvent):
            model.model_rebuild(force=True)

    with monkeypatch.context() as registry:
        registry.setitem(FAULTS, "freeze", Freeze)
        rebuild()
        yield
    rebuild()


@pytest.mark.usefixtures("freezing")
def test_a_new_kind_is_read_planned_carried_out_described_and_healed(lab: Lab) -> None:
    spec = parse_chaos([{"freeze": "leader", "degrees": -20, "at": "1s", "thaw_after": "2s"}])
    assert spec.written == {"freeze": "leader", "degrees": -20, "at": "1s", "thaw_after": "2s"}
    assert label(spec) == "freeze leader at -20 degrees"
    with pytest.raises(BadChaos, match="did you mean freeze"):
        parse_chaos({"freze": "leader"})
    schedule = plan(spec, duration_s=10.0, nodes=NODES, seed=1)
    target = lab.run(schedule)
    calls = [call for call in target.calls if call[0] < 3.5]
    assert calls[:4] == [(1.0, "links", ()), (1.0, "inside", ("n1",)), (1.0, "pause", ("n1",)), (3.0, "no links", ())]
    assert (3.0, "resume", ("n1",)) in calls
    assert [(event.action, event.kind, event.detail, event.error) for event in lab.events][:2] == [
        ("inject", "freeze", "n1 at -20 degrees", ""),
        ("heal", "freeze", "n1 at -20 degrees", ""),
    ]
    assert Schedule.model_validate_json(ran(schedule, lab.events).model_dump_json()).faults[0].ids == ("n1",)
    target.assert_healed()


@pytest.mark.usefixtures("freezing")
def test_a_new_kind_is_drawn_by_a_monkey_and_stands_in_the_grammar(lab: Lab) -> None:
    schedule = plan(parse_chaos({"monkey": ["freeze"], "every": "2s"}), duration_s=10.0, nodes=NODES, seed=1)
    assert [fault.kind for fault in schedule.faults] == ["freeze"] * 5
    lab.run(schedule).assert_healed()
    assert "\nfreeze: NODES" in grammar()


@pytest.mark.usefixtures("freezing")
def test_a_new_kind_is_judged_by_what_it_declares() -> None:
    struck = {"kind": "freeze", "action": "inject", "nodes": ["n1"], "index": 0, "time_ns": 20, "detail": "x"}
    struck["fault"] = {"freeze": ["n1"]}

    def judged(**counted: int) -> str:
        told = [
            statuses.Status("n1", 1, 10, touched=dict.fromkeys(counted, 0)),
            statuses.Status("n1", 1, 30, touched=counted),
        ]
        return judge_coverage(Observed(Load(100, 90), [FaultEvent.read(struck)], nodes=NODES, statuses=told)).reason

    assert judged(chilled=3).startswith("100 operations")
    assert judged(chilled=0) == "freeze n1 did nothing: no message was chilled"
    assert judged(cut=3) == "freeze n1 may have done nothing: no node reported how many messages were chilled"
    led = TraceRecord("n1", 1, 10, "became_leader", 1)
    assert [each.old_leader for each in failovers([led, FaultEvent.read(struck)], np.array([], np.int64))] == ["n1"]
    parameters = Parameters.model_validate({"cluster": {"nodes": 3}, "phases": {"measure": 30.0}})
    frozen = parameters.model_copy(update={"chaos": parse_chaos({"freeze": "majority", "thaw_after": "1s"})})
    lossy = parameters.model_copy(update={"chaos": parse_chaos({"drop": 0.1, "heal_after": "1s"})})
    assert longest_outage_s(frozen) == pytest.approx(longest_outage_s(lossy) + 1.0)


@pytest.mark.usefixtures("freezing")
def test_a_node_that_was_stopped_has_the_tables_when_it_wakes(lab: Lab) -> None:
    """Its links and disk are healed before it resumes, when it cannot hear of it, and once more afterwards."""
    target = lab.run(plan(parse_chaos({"freeze": "n2", "at": "1s"}), duration_s=5.0, nodes=NODES, seed=1))
    target.assert_healed()
    assert [event.action for event in lab.events] == ["inject", "heal", "heal"]


def test_the_kind_of_this_file_is_gone_afterwards() -> None:
    with pytest.raises(BadChaos, match="no kind of fault among freeze"):
        parse_chaos({"freeze": "leader"})
