"""What makes a kind of fault: what it must declare, and that everything goes by what it declares."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any, ClassVar, Self

import pytest

from chaos.faults import FAULTS, Effect, Fault, Proof, fault_kind, grammar
from chaos.faults.base import Moment, Nodes
from chaos.faults.process import ProcessFault
from raft_actor_node.links import LinkRule

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
    """Everything that a kind must declare, but the kind itself: no class of its own is checked."""

    end_key = "heal_after"
    nodes_key = "whole"
    takes = "NODES"
    happens = "nothing is left out"
    proof: ClassVar[tuple[Proof, ...]] = ()
    ends_leadership = "never"
    silences = False
    begins_life = "never"
    disables: ClassVar[bool] = False

    whole: Nodes
    heal_after: Moment | None = None

    def effect(self, nodes: Sequence[str], *, preparing: bool = False) -> Effect:
        return Effect(links=[LinkRule(from_id="n1", to_id="n2", cut=True)])

    @classmethod
    def drawn(cls, nodes: Sequence[str], rng: Random) -> Self:
        return cls(whole=tuple(nodes))

    def describe(self) -> str:
        return "whole"


DECLARED = ("end_key", "takes", "happens", "proof", "ends_leadership", "silences", "begins_life")


@pytest.mark.parametrize("name", DECLARED)
def test_a_kind_that_leaves_a_declaration_out_is_an_error_where_it_is_defined(name: str) -> None:
    inherited = {key: value for key, value in vars(Whole).items() if key in (*DECLARED, "nodes_key") and key != name}
    methods = {key: vars(Whole)[key] for key in ("effect", "drawn", "describe")}
    body = {"__module__": __name__, "kind": "whole", "disables": False, **inherited, **methods}
    body["__annotations__"] = {"disables": ClassVar[bool], "whole": Nodes, "heal_after": Moment | None}
    with pytest.raises(TypeError, match=f"a kind of fault must declare {name}$"):
        type(Fault)("Partial", (Fault,), body | {"heal_after": None})


@pytest.mark.parametrize("name", ["effect", "drawn", "describe", "disables"])
def test_a_kind_that_leaves_a_method_out_is_an_error_where_it_is_defined(name: str) -> None:
    body: dict[str, Any] = {key: value for key, value in vars(Whole).items() if key in (*DECLARED, "nodes_key")}
    body |= {key: vars(Whole)[key] for key in ("effect", "drawn", "describe") if key != name}
    body |= {"__module__": __name__, "kind": "whole", "heal_after": None}
    body["__annotations__"] = {"whole": Nodes, "heal_after": Moment | None}
    if name != "disables":
        body["disables"] = False
        body["__annotations__"]["disables"] = ClassVar[bool]
    with pytest.raises(TypeError, match=f"a kind of fault must declare {name}$"):
        type(Fault)("Partial", (Fault,), body)


def test_a_family_gives_no_kind_its_effect_on_leadership() -> None:
    with pytest.raises(TypeError, match="must declare ends_leadership, begins_life, effect"):

        class Freeze(ProcessFault):
            kind = nodes_key = "freeze"
            end_key = "resume_after"
            happens = "it freezes"

            freeze: Nodes
            resume_after: Moment | None = None


def test_a_fault_without_an_effect_is_refused() -> None:
    with pytest.raises(ValueError, match="without an effect"):
        Effect()
