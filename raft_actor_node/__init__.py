"""A Raft node: its core, its state machine, the process around them, and its clients."""

import os

# Otherwise gRPC reports every connection that a peer closes, on the terminal of the live display. It reads this once,
# when it is imported; so it is set here, before any module imports it.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
