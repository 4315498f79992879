"""The replicated state machine: a key-value store with client sessions (paper, section 8).

`commands` defines the content of log entries, `store` applies it, and `model` is the specification of applying. This
package does not know time or the network; it uses terms only in hashes.
"""
