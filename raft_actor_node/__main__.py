"""One Raft node as a process: `python -m raft_actor_node --config FILE`.

Exit codes: 0 stopped, 2 configuration, 3 no port, 4 directory locked, 5 data corrupt or foreign, 6 disk
error, 7 invariant broken.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

import uvloop

from raft_actor_node.config import load_node_config
from raft_actor_node.descriptors import open_standard_descriptors
from raft_actor_node.errors import ConfigError, RaftLabError
from raft_actor_node.runtime.logs import RepeatFilter
from raft_actor_node.runtime.process import run_node
from raft_actor_node.text import printable


def main() -> int:
    """Parse the command line, run the node and return its exit code."""
    open_standard_descriptors()
    parser = argparse.ArgumentParser(prog="raft_actor_node", description="One node of a Raft cluster.")
    parser.add_argument("--config", required=True, metavar="FILE", help="configuration of the node, JSON or YAML")
    parser.add_argument(
        "--address-book",
        metavar="DIR",
        type=Path,
        help="find the other nodes through files in this directory; default: read their addresses from stdin, as "
        "JSON lines, and stop at the end of file",
    )
    parser.add_argument("--debug", action="store_true", help="show tracebacks of errors")
    arguments = parser.parse_args()
    try:
        config = load_node_config(arguments.config)
        _log_to(config.log_file)
        return uvloop.run(run_node(config, arguments.address_book))
    except RaftLabError as error:
        if arguments.debug:
            raise
        sys.stderr.write(f"raft_actor_node: {printable(str(error))}\n")
        return error.exit_code


class _Lines(logging.Formatter):
    """Formatter that keeps each message on one line, even when it quotes a peer or a client."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is that of the base class
        record.message = printable(record.message)
        return super().formatMessage(record)


def _log_to(path: str | None) -> None:
    try:
        handler = logging.StreamHandler() if path is None else logging.FileHandler(path)
    except OSError as error:
        raise ConfigError(f"log_file: {path}: {error.strerror}") from None
    handler.addFilter(RepeatFilter())
    handler.setFormatter(_Lines("%(asctime)s.%(msecs)03d %(levelname)s %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


if __name__ == "__main__":
    sys.exit(main())
