"""Nodes on the hosts of a testbed without Ray; they find each other through a shared folder."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from orchestration.testbed.hosts import ROOT, Testbed
from raft_actor_node.config import NodeConfig, RaftSettings, StorageSettings
from tests.testbed.waiting import eventually

ENV = {"PYTHONPATH": str(ROOT)}


def start_nodes(bed: Testbed, folder: Path, raft: RaftSettings) -> list[str]:
    """Start a node on each host and wait until all serve; return NODE=HOST:PORT of each."""
    book = folder / "book"
    for host in bed.hosts:
        config = NodeConfig(
            cluster_id="testbed",
            node_id=host.name,
            members=[each.name for each in bed.hosts],
            bind_host="0.0.0.0",
            advertise_host=host.address,
            bootstrap=True,
            raft=raft,
            storage=StorageSettings(dir="/var/tmp/wal"),
            trace_file=str(folder / f"{host.name}.trace"),
        )
        file = folder / f"{host.name}.json"
        file.write_text(config.model_dump_json())
        command = (sys.executable, "-m", "raft_actor_node", "--config", str(file), "--address-book", str(book))
        host.start(*command, env=ENV)
    eventually(lambda: all((book / host.name).exists() for host in bed.hosts), "all serve", 20)
    return [f"{host.name}={json.loads((book / host.name).read_text())['address']}" for host in bed.hosts]


def trace_files(bed: Testbed, folder: Path) -> dict[str, Path]:
    """Return the trace file of each node of `start_nodes`."""
    return {host.name: folder / f"{host.name}.trace" for host in bed.hosts}
