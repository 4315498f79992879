"""Is a history linearizable: did clients see what a store with a single copy would have shown them?

    result = check(History.read_jsonl("history.jsonl"), time_limit_s=60)
    result.verdict                      # ok | violated | unknown
    result.violation.as_text()          # the few operations that contradict one another; as_svg() draws them

`checker` iterates over the keys. `pose` turns the operations on one key into a problem; `problem` defines it, and
`states` the values of a key. `tighten` narrows the interval in which each operation can have taken effect, and finds
most violations; `search` looks for an order. `shrink` reduces a violation, and `violation` shows it.
"""

from chaos.linearizability.checker import Linearizability, Verdict, check
from chaos.linearizability.violation import Violation

__all__ = ["Linearizability", "Verdict", "Violation", "check"]
