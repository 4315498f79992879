"""Faults as data, schedules of faults, and the monkey that carries them out.

    spec = parse_chaos({"crash": "leader", "at": "1/3", "restart_after": "2s"})   # grammar: chaos/faults/
    schedule = plan(spec, duration_s=10.0, nodes=cluster.node_ids, seed=42)       # pure
    events = await run(cluster, schedule)                                         # acts, and always heals
    ran(schedule, events).save("schedule.json")                                   # {replay: schedule.json}

This package knows a cluster only as a Target (chaos/target.py).
"""

from chaos.events import FaultEvent, exit_cause, fault_windows, ran
from chaos.monkey import MonotonicClock, NotHealed, ScheduleClock, Timeouts, run
from chaos.schedule import Schedule, plan
from chaos.spec import BadChaos, ChaosSpec, label, parse_chaos
from chaos.target import Applied, Target

__all__ = [
    "Applied",
    "BadChaos",
    "ChaosSpec",
    "FaultEvent",
    "MonotonicClock",
    "NotHealed",
    "Schedule",
    "ScheduleClock",
    "Target",
    "Timeouts",
    "exit_cause",
    "fault_windows",
    "label",
    "parse_chaos",
    "plan",
    "ran",
    "run",
]
