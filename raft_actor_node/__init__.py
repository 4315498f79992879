"""A Raft node: its core, its state machine, the process around them, and its clients."""

import os

# gRPC would otherwise report every connection that a peer closes, on the terminal of the live display. gRPC reads the
# variable once, when it is imported; so this package sets it before any of its modules imports gRPC.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
