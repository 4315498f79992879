from __future__ import annotations

import subprocess
import sys

import pytest

from orchestration.address_book import AddressBook, Entry


def test_epoch_grows_with_each_life() -> None:
    book = AddressBook()
    assert book.set("n1", "127.0.0.1:1") == Entry("127.0.0.1:1", 1)
    assert book.set("n2", "127.0.0.1:2").epoch == 1
    assert book.set("n1", "127.0.0.1:1").epoch == 2  # a new incarnation, even on the same port
    assert book.addresses() == {"n1": "127.0.0.1:1", "n2": "127.0.0.1:2"}
    assert book.to_json()["n1"] == {"address": "127.0.0.1:1", "epoch": 2}
    assert dict(book) == {"n1": Entry("127.0.0.1:1", 2), "n2": Entry("127.0.0.1:2", 1)}


async def test_listeners_are_told_when_published(caplog: pytest.LogCaptureFixture) -> None:
    book, heard = AddressBook(), list[str]()

    async def slow(book: AddressBook) -> None:
        heard.append(f"async {len(book)}")

    def broken(book: AddressBook) -> None:
        raise OSError("gone")

    book.subscribe(broken)
    unsubscribe = book.subscribe(lambda book: heard.append(f"sync {len(book)}"))
    book.subscribe(slow)
    book.set("n1", "127.0.0.1:1")
    assert heard == []
    await book.publish()
    assert heard == ["sync 1", "async 1"]
    assert "listener failed" in caplog.text
    unsubscribe()
    unsubscribe()
    await book.publish()
    assert heard == ["sync 1", "async 1", "async 1"]


def test_light_modules_do_not_import_ray() -> None:
    program = (
        "import sys, orchestration.address_book, orchestration.errors, orchestration.ray_cluster.actor\n"
        "from orchestration import ClusterPlan\n"
        "assert ClusterPlan(nodes=5).nodes == 5\n"
        "sys.exit('ray' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
