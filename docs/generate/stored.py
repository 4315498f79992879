"""What stored files hold, for the reference: what the code that writes them does not say of itself.

tests/docs/test_reference.py holds these tables against real runs.
"""

from __future__ import annotations

FILES = {
    "spec.yaml": "The spec, resolved. `sweep run spec.yaml` makes the same cells again.",
    "manifest.json": "Format, versions, commit, CPU, kernel, file system of the logs, command line, seed, hosts; "
    "`complete: true` after the last cell.",
    "journal.jsonl": "What happened to the run, one line per event.",
    "results.csv": "One row per cell.",
    "cells/<id>/params.json": "The parameters of the cell. Its id is a hash of them and of the repeat.",
    "cells/<id>/result.json": "Counts, percentiles, elections, faults, failovers by stage, flags, verdict.",
    "cells/<id>/latency.npz": "Every operation.",
    "cells/<id>/events.jsonl": "Phases, faults, and trace events of all nodes, on one clock. Of the commits only the "
    "first of each term and incarnation of a node.",
    "cells/<id>/schedule.json": "The faults as they really struck. `chaos: {replay: FILE}` runs them again; FILE is "
    "read anew, relative to where `sweep` is started.",
    "cells/<id>/nodes/<node>.log": "Standard output and error of the node.",
    "cells/<id>/traces/<node>.jsonl.gz": "Every trace event of every incarnation of the node, for the verdict.",
    "cells/<id>/inspection.json": "What the nodes reported, and when: roles, indexes, what a leader knows "
    "of its followers, link counters; at the end hashes of log prefixes.",
    "cells/<id>/violation.txt": "The smallest part of the history that shows a violation. Only with a violation.",
    "cells/<id>/violation.svg": "The same as a picture.",
}
"""Files of a run directory."""

_PERCENTILES = {
    "<p>": "`p50`, `p90`, `p99`, `p99.9` or `max`, in ms; null with fewer than 10 samples above it",
    "lower_bounds": "names of those percentiles that are lower bounds",
}
_OUTCOMES = {
    "ok": "measured operations that succeeded",
    "failed": "those that had no effect",
    "unknown": "those that may have taken effect, now or later",
    "dropped": "operations of an open loop that were due and could not be started",
}
_FIGURES = {
    "cpu_share": "CPU time per time; 1 is one core",
    "resident_bytes": "memory at the end",
    "fsync_p50_us": "median of an fsync, microseconds",
    "fsync_p99_us": "99th percentile of an fsync",
    "loop_lag_p99_us": "99th percentile of the delay of the event loop",
    "loop_lag_max_us": "longest delay of the event loop",
    "round_trip_p50_us": "median round trip to a peer",
}

RESULT_KEYS = {
    "cell": "id of the cell",
    "status": "`ok`, `failed`, `interrupted`, or `infrastructure`: what the nodes ran on failed",
    "reason": "why the status is not ok, in one line; null when it is",
    "detail": "more lines about the reason, where there are any",
    "kept": "folders in which the logs of a failed cell are kept",
    "chaos": "label of the faults",
    "target": "`sim` in simulation; else absent",
    "load_scaled": "in simulation, parameters of the load that were made smaller: [asked for, used]",
    "digest": "in simulation, the digest of the trace; the same seed gives the same",
    "phases_s": "seconds of each phase",
    "bring_up_s": "seconds to `place`, `spawn`, `serving` and `leader`, each from the end of the one before",
    "elections.started": "elections begun in the measurement; null when nothing is traced",
    "elections.won": "elections won in the measurement",
    "elections.first_term": "term when the measurement began",
    "elections.last_term": "highest term in the measurement",
    "faults": "faults that were put in force",
    "faults_asked": "faults in the schedule",
    "failovers[].old_leader": "node that led before the failover",
    "failovers[].new_leader": "node that leads after it; null when no other came to lead",
    "failovers[].term": "term of the new leader",
    "failovers[].lost_ns": "when the leader was lost, on the driver's clock",
    "failovers[].<stage>_ms": "time from the loss to the stage (detected, elected, heard, committed, succeeded); null "
    "when it was not reached before the next loss or the end",
    "availability": "null without faults",
    "availability.state": "`available`, `barely available` or `unavailable` under all faults that lasted long enough; "
    "null when they differ, or none did",
    "availability.outage_ms": "longest time under a fault in which no operation completed",
    "availability.share": "smallest rate under a fault, as a share of the rate before the first",
    "availability.faults[].state": "the same of each fault; null when it was over too soon to tell",
    "availability.faults[].outage_ms": "the same of each fault",
    "flags": "signs that the machine was measured and not the protocol, one line each",
    "placement.<node>.host": "address of the host of the node",
    "placement.<node>.hostname": "its name",
    "host_busy": "share of the host's CPU time used by all programs; null with several hosts",
    **{f"nodes.<node>.{name}": f"of each node: {meaning}" for name, meaning in _FIGURES.items()},
    **{f"load.{name}": f"of the load generators, the largest: {meaning}" for name, meaning in _FIGURES.items()},
    "clock_error_ms": "by how much times of different hosts may be wrong; 0 when all read one clock",
    **{f"operations.{name}": meaning for name, meaning in _OUTCOMES.items()},
    **{f"operations.by_kind.<kind>.{name}": f"{meaning}, of one kind" for name, meaning in _OUTCOMES.items()},
    "throughput_per_s": "operations that succeeded per second of the measurement",
    "throughput_series_per_s": "the same for each second",
    "longest_gap_ms": "longest time within the measurement without a success",
    **{f"latency_ms.<kind>.{name}": meaning for name, meaning in _PERCENTILES.items()},
    **{f"latency_under_fault_ms.<kind>.{name}": f"under a fault: {m}" for name, m in _PERCENTILES.items()},
    **{f"latency_without_fault_ms.<kind>.{name}": f"of all others: {m}" for name, m in _PERCENTILES.items()},
    "metrics.<metric>": "every metric by its name; see [metrics](#metrics)",
    "lower_bounds": "metrics that are lower bounds",
    "verdict.verdict": "`ok`, `violated` or `unknown`; `pending` until it is judged",
    "verdict.reason": "why it is not ok, in one line",
    "verdict.findings[].check": "name of the check",
    "verdict.findings[].verdict": "its finding: `ok`, `violated` or `unknown`",
    "verdict.findings[].reason": "the finding in one line",
    "verdict.findings[].detail": "more lines",
    "verdict.not_checked": "checks that were not made",
    "verdict.seconds": "how long the checks took",
    "verdict.expected": "whether the cell's `expect` asked for this verdict, which is not ok",
    "verdict.unexpected": "whether the verdict is other than `expect` asks for; it then decides the exit code",
}
"""Keys of result.json."""

CSV_COLUMNS = {
    "cell": "id of the cell",
    "repeat": "number of the repeat, from 1",
    "status": "`ok`, `failed`, `interrupted` or `infrastructure`",
    "verdict": "`ok`, `violated`, `unknown` or `pending`",
    "not_checked": "checks that were not made",
    "reason": "why status or verdict are not ok",
    "target": "the system under test",
    "load_scaled": "with how much less load the cell was simulated",
    "load.mode": "`open` or `closed`",
    "one column per axis": "the value of the axis, by its dotted name; `case` is the name of a case",
    "cluster.nodes": "number of nodes",
    "hosts": "hosts that had nodes, and how many",
    "chaos": "label of the faults",
    "one column per metric": "see [metrics](#metrics)",
    "lower_bounds": "columns of this row that are lower bounds",
    "flags": "signs that the machine was measured and not the protocol",
}
"""Columns of results.csv."""
