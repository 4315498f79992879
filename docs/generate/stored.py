"""Descriptions of stored files for the reference, where the code that writes them has none.

tests/docs/test_reference.py compares these tables with real runs.
"""

from __future__ import annotations

FILES = {
    "spec.yaml": "The spec with every default written out. `sweep run spec.yaml` makes the same cells again.",
    "manifest.json": "Format, versions, commit, CPU, kernel, file system of the logs, command line, seed, hosts; "
    "`complete: true` after the last cell.",
    "journal.jsonl": "The events of the run, one line each.",
    "results.csv": "One row per cell.",
    "cells/<id>/params.json": "The parameters of the cell. Its id is a hash of them and of the repeat.",
    "cells/<id>/result.json": "Counts, percentiles, elections, faults, failovers by stage, flags, verdict.",
    "cells/<id>/latency.npz": "Every operation.",
    "cells/<id>/events.jsonl": "Phases, faults, and trace events of all nodes, on one clock. Of the commits, only the "
    "first of each term and incarnation of a node is kept.",
    "cells/<id>/schedule.json": "The faults as they struck. `chaos: {replay: FILE}` injects them again. FILE is read "
    "relative to the folder in which `sweep` is started.",
    "cells/<id>/nodes/<node>.log": "Standard output and error of the node.",
    "cells/<id>/traces/<node>.jsonl.gz": "Every trace event of every incarnation of the node, for the verdict.",
    "cells/<id>/inspection.json": "What the nodes reported, and when: roles, indexes, a leader's view of its "
    "followers, counters of faults; at the end also hashes of log prefixes.",
    "cells/<id>/violation.txt": "The smallest part of the history that shows a violation. Only with a violation.",
    "cells/<id>/violation.svg": "The same as a picture.",
}
"""Files of a run directory."""

_PERCENTILES = {
    "<p>": "`p50`, `p90`, `p99`, `p99.9` or `max`, in ms; a percentile with fewer than 10 samples above it is null",
    "lower_bounds": "names of those percentiles that are lower bounds",
}
_OUTCOMES = {
    "ok": "measured operations that succeeded",
    "failed": "measured operations that had no effect",
    "unknown": "measured operations that may have taken effect, now or later",
    "dropped": "operations of an open loop that were due and could not be started",
}
_FIGURES = {
    "cpu_share": "CPU time per elapsed time; 1 is one core",
    "resident_bytes": "memory at the end",
    "fsync_p50_us": "median duration of an fsync, microseconds",
    "fsync_p99_us": "99th percentile of the duration of an fsync, microseconds",
    "loop_lag_p99_us": "99th percentile of the delay of the event loop, microseconds",
    "loop_lag_max_us": "longest delay of the event loop, microseconds",
    "round_trip_p50_us": "median round trip to a peer, microseconds",
}

RESULT_KEYS = {
    "cell": "id of the cell",
    "status": "`ok`, `failed`, `interrupted`, or `infrastructure`: a host, an actor, a disk or Ray failed",
    "reason": "why the status is not ok, in one line; null if it is ok",
    "detail": "more lines about the reason; absent if there are none",
    "kept": "folders with the logs of a failed or violated cell",
    "chaos": "label of the faults",
    "target": "`sim` in simulation; otherwise absent",
    "load_scaled": "in simulation, the reduced parameters of the load: [requested, used]; null if none was",
    "digest": "in simulation, the digest of the trace; the same seed gives the same digest",
    "phases_s": "seconds of each phase",
    "bring_up_s": "seconds to `place`, `spawn`, `serving` and `leader`, each from the end of the previous step",
    "elections.started": "elections begun in the measurement; null without traces",
    "elections.won": "elections won in the measurement",
    "elections.first_term": "term when the measurement began",
    "elections.last_term": "highest term in the measurement",
    "faults": "faults that were injected",
    "faults_asked": "faults in the schedule",
    "failovers[].old_leader": "node that led before the failover",
    "failovers[].new_leader": "node that leads after it; null if no other node became leader",
    "failovers[].term": "term of the new leader",
    "failovers[].lost_ns": "when the leader was lost, on the driver's clock",
    "failovers[].<stage>_ms": "time from the loss to the stage (detected, elected, heard, committed, succeeded); null "
    "if it was not reached before the next loss or the end, or was not traced",
    "availability": "null without faults",
    "availability.state": "`available`, `barely available` or `unavailable` under all faults that lasted long enough; "
    "null if these faults differ, or if there were none",
    "availability.outage_ms": "longest time under a fault in which no operation completed",
    "availability.share": "lowest rate under a fault, as a share of the rate before the first fault",
    "availability.faults[].state": "the state under each fault; null if the fault was too short to tell",
    "availability.faults[].outage_ms": "the outage under each fault",
    "flags": "signs that the numbers reflect the machine, not the protocol; one line each",
    "placement.<node>.host": "address of the host of the node",
    "placement.<node>.hostname": "name of that host",
    "host_busy": "share of the host's CPU time in use, by any program; null with several hosts",
    **{f"nodes.<node>.{name}": f"of each node: {meaning}" for name, meaning in _FIGURES.items()},
    **{f"load.{name}": f"largest over the load generators: {meaning}" for name, meaning in _FIGURES.items()},
    "clock_error_ms": "error bound of times of different hosts; 0 if all read one clock",
    **{f"operations.{name}": meaning for name, meaning in _OUTCOMES.items()},
    **{f"operations.by_kind.<kind>.{name}": f"{meaning}, of one kind" for name, meaning in _OUTCOMES.items()},
    "throughput_per_s": "operations that succeeded per second of the measurement",
    "throughput_series_per_s": "operations that succeeded in each second",
    "longest_gap_ms": "longest time within the measurement in which no operation succeeded",
    **{f"latency_ms.<kind>.{name}": meaning for name, meaning in _PERCENTILES.items()},
    **{f"latency_under_fault_ms.<kind>.{name}": f"under a fault: {m}" for name, m in _PERCENTILES.items()},
    **{f"latency_without_fault_ms.<kind>.{name}": f"not under a fault: {m}" for name, m in _PERCENTILES.items()},
    "metrics.<metric>": "every metric by its name; see [metrics](#metrics)",
    "lower_bounds": "metrics that are lower bounds",
    "verdict.verdict": "`ok`, `violated` or `unknown`; `pending` until it is judged",
    "verdict.reason": "why it is not ok, in one line; empty if it is ok",
    "verdict.findings[].check": "name of the check",
    "verdict.findings[].verdict": "its finding: `ok`, `violated` or `unknown`",
    "verdict.findings[].reason": "the finding in one line",
    "verdict.findings[].detail": "more lines about the finding",
    "verdict.not_checked": "checks that were not made",
    "verdict.seconds": "time that the checks took",
    "verdict.expected": "whether `expect: safe`, `unknown` or `violated` is met by this verdict",
    "verdict.unexpected": "whether the verdict does not meet `expect`; such a verdict counts in the exit code",
}
"""Keys of result.json."""

CSV_COLUMNS = {
    "cell": "id of the cell",
    "repeat": "number of the repeat, from 1",
    "status": "`ok`, `failed`, `interrupted` or `infrastructure`",
    "verdict": "`ok`, `violated`, `unknown` or `pending`",
    "not_checked": "checks that were not made",
    "reason": "why the status or the verdict is not ok",
    "target": "the system under test",
    "load_scaled": "reductions of the load in simulation",
    "load.mode": "`open` or `closed`",
    "one column per axis": "the value of the axis, by its dotted name; `case` is the name of a case",
    "cluster.nodes": "number of nodes",
    "hosts": "hosts with nodes, and their number of nodes",
    "chaos": "label of the faults",
    "one column per metric": "see [metrics](#metrics)",
    "lower_bounds": "columns of this row that are lower bounds",
    "flags": "signs that the numbers reflect the machine, not the protocol",
}
"""Columns of results.csv."""
