"""The project's own node with a bug planted: `python buggy_node.py BUG --config FILE`."""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path

from raft_actor_node.__main__ import main
from raft_actor_node.kv.store import Store


def forgets_its_log() -> None:
    """Begin every incarnation with an empty directory."""
    path = Path(sys.argv[sys.argv.index("--config") + 1])
    config = json.loads(path.read_text(encoding="utf-8"))
    shutil.rmtree(Path(config["storage"]["dir"], config["node_id"]), ignore_errors=True)
    path.write_text(json.dumps({**config, "bootstrap": True}), encoding="utf-8")


def reads_from_a_cache() -> None:
    """Answer a read from a cache that is up to 0.5 s old."""
    fresh, cache = Store.get, dict[bytes, tuple[float, bytes | None]]()

    def get(store: Store, key: bytes) -> bytes | None:
        read_s, value = cache.get(key, (0.0, None))
        if time.monotonic() - read_s > 0.5:
            value = fresh(store, key)
            cache[key] = time.monotonic(), value
        return value

    Store.get = get  # type: ignore[method-assign]


BUGS = {bug.__name__: bug for bug in (forgets_its_log, reads_from_a_cache)}

if __name__ == "__main__":
    BUGS[sys.argv.pop(1)]()
    sys.exit(main())
