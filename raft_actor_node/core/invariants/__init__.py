"""The invariants of Raft (paper, Figure 3; dissertation, chapters 4 and 6), and where each is checked.

    local.py    by each node, after every step, also in real runs; a broken rule stops the node (exit code 7).
                The driver checks what is applied; a leader checks what it knows to be durable
    cluster.py  by a simulation, after every step of every node, over all nodes and all their incarnations
    history.py  after a real run, from the trace events of all incarnations of all nodes
    statuses    also after a real run, from the statuses that nodes reported when inspected: chaos/checks

    rule                                              local.py cluster.py                       history.py, statuses
    ------------------------------------------------  -------  -------------------------------  ---------------------
    election safety, across restarts                           a new leader: no other in its    became_leader,
                                                               term, votes of a quorum          leader_heard
    one vote per term and node, across restarts       step     messages that left, disk, start  vote_granted, started
    votes only for logs that are up-to-date                    step
    term never decreases, across restarts             step     step, disk, start                every event
    leader append-only                                step     step                             log_truncated
    log matching                                               step, disk, append success       commit
    leader completeness                                        a new leader, a first commit     became_leader
    state machine safety                                       commit (first by a leader, of    commit, log_truncated
                                                               what it verified), application
    commit_index monotonic within an incarnation      step     step                             commit, statuses
    match_index monotonic, next_index > match_index   step     step of a leader                 statuses of a leader
    last_applied <= commit_index <= last entry        step     application                      statuses
    commit by counting entries of the own term only            step of a leader                 commit of a leader
    committed means durable on a quorum, for ever     step     first commit, disk, start,       commit against the
                                                               match_index against promises     last statuses
    a promise leaves after its fsync                           messages that leave              (traced when durable)
    a disk keeps what was synced; writes are atomic            start, what goes to the disk     started (vote, its log)
    at most once per session and sequence                      application, against a model     (chaos/linearizability)
    same applied prefix, same results and state                application, compare_states      hashes in statuses
    linearizable reads                                         reads: index, round, no-op;      (chaos/linearizability)
                                                               answered: state
    pre-vote changes no term and no vote                       step, against received messages  became_pre_candidate
    check quorum steps down within 2 x ET max         step     step of a leader                 statuses of a leader
                                                                                                that a fault cut off
    roles change as in Figure 4                       step                                      became_...
    liveness, in a separate phase                              liveness.py                      chaos/checks/liveness.py

This package exports the names that a node needs; import all others from their modules.
"""

from raft_actor_node.core.invariants.local import QUORUM_PATIENCE, Leadership, Snapshot, check, require

__all__ = ["QUORUM_PATIENCE", "Leadership", "Snapshot", "check", "require"]
