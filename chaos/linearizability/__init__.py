"""Whether clients saw what a store of one copy would have shown them.

    result = check(History.read_jsonl("history.jsonl"), time_limit_s=60)
    result.verdict                      # ok | violated | unknown
    result.violation.as_text()          # the few operations that contradict one another; as_svg() draws them

`checker` walks over the keys. `pose` turns the operations on one into a problem; `problem` says what that is,
`states` what a key can hold. `tighten` narrows down when each operation can have taken effect, and finds most of
what is wrong; `search` looks for an order. `shrink` makes a violation small, and `violation` shows it.
"""

from chaos.linearizability.checker import Linearizability, Verdict, check
from chaos.linearizability.violation import Violation

__all__ = ["Linearizability", "Verdict", "Violation", "check"]
