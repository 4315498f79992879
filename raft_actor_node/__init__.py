"""A Raft node: its core, its state machine, the process around them, and its clients."""
