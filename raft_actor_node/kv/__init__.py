"""The replicated state machine: a key-value store with client sessions (paper, section 8).

`commands` is what stands in a log entry, `store` applies it, `model` says in the plainest way what
applying means. Nothing here knows of terms beyond hashing them, of time, or of the network.
"""
