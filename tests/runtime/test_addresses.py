"""How a node finds its peers when their addresses change."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TextIO

import pytest

from raft_actor_node.config import NodeConfig, TransportSettings
from raft_actor_node.runtime.clock import RealClock
from raft_actor_node.runtime.faults import LinkFaults
from raft_actor_node.runtime.process import AddressDirectory, Addresses
from raft_actor_node.runtime.transport import Transport
from raft_actor_node.units import Range


class Port:
    """A port that records whether a peer connected to it."""

    def __init__(self) -> None:
        self.called = asyncio.Event()
        self.address = ""

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.called.set()
        writer.close()


@asynccontextmanager
async def listening() -> AsyncIterator[Port]:
    """A port of this host that listens until the context ends."""
    port = Port()
    server = await asyncio.start_server(port, "127.0.0.1", 0)
    try:
        port.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield port
    finally:
        server.close()


def wipe(directory: Path) -> None:
    for file in directory.iterdir():
        file.unlink()


def config_of(node_id: str) -> NodeConfig:
    return NodeConfig.model_validate(
        {"cluster_id": "c", "node_id": node_id, "members": ["n1", "n2"], "storage": {"dir": "unused"}}
    )


async def test_older_news_of_an_address_is_not_believed() -> None:
    """A later epoch belongs to a later incarnation of the peer; another process may have its earlier address by now."""
    config = config_of("n1")
    quick = TransportSettings(reconnect_backoff=Range(0.001, 0.002), connect_timeout=0.2)
    config = config.model_copy(update={"transport": quick})
    faults = LinkFaults("n1", config.members, (), random.Random(0))
    transport = Transport(config, faults, lambda message: None, RealClock())
    try:
        async with asyncio.timeout(10), listening() as new, listening() as old, listening() as newest:
            transport.update_addresses({"n2": (new.address, 2)})
            await new.called.wait()
            transport.update_addresses({"n2": (old.address, 1)})
            new.called.clear()
            await new.called.wait()  # the link goes on connecting there
            transport.update_addresses({"n2": (newest.address, 3)})
            await newest.called.wait()
            assert not old.called.is_set()
    finally:
        await transport.close()


async def test_a_later_life_has_a_higher_epoch_though_the_wall_clock_went_back(tmp_path: Path) -> None:
    """Without an owner, nodes publish their addresses in files; peers ignore an address of a lower epoch."""
    news: asyncio.Queue[Addresses] = asyncio.Queue()
    AddressDirectory(tmp_path, config_of("n1"), news.put_nowait).announce("n1", "127.0.0.1:41230")
    epochs = []
    for life in (1, 2, 3):
        address = f"127.0.0.1:4123{life}"
        AddressDirectory(tmp_path, config_of("n2"), lambda _: None).announce("n2", address)
        os.utime(tmp_path / "n2", (1e9 - life, 1e9 - life))  # each incarnation is older than its predecessor
        async with asyncio.timeout(10):
            while (found := (await news.get()).get("n2", ("", 0)))[0] != address:
                pass
        epochs.append(found[1])
    assert epochs == [1, 2, 3]


async def test_a_directory_that_was_wiped_hides_no_later_life(tmp_path: Path) -> None:
    """A running peer has seen higher epochs than those with which the new files begin."""
    book: dict[str, tuple[str, int]] = {}
    seen = asyncio.Event()

    def take(addresses: Addresses) -> None:
        for node_id, (address, epoch) in addresses.items():
            if epoch > book.get(node_id, ("", -1))[1]:  # as a link does
                book[node_id] = address, epoch
        seen.set()

    AddressDirectory(tmp_path, config_of("n1"), take).announce("n1", "127.0.0.1:41230")
    for life in (1, 2, 3, "wiped", 4, "wiped", 5, 6):
        if life == "wiped":
            wipe(tmp_path)
            continue
        address = f"127.0.0.1:4123{life}"
        AddressDirectory(tmp_path, config_of("n2"), lambda _: None).announce("n2", address)
        async with asyncio.timeout(10):
            while book.get("n2", ("", 0))[0] != address:
                seen.clear()
                await seen.wait()


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[" * 100_000, "127.0.0.1:41231", "[]", '{"address": "127.0.0.1:41231"}'),
        *('{"address": "x", "epoch": "y"}', '{"address": "127.0.0.1:41231", "epoch": 1e999}'),
    ],
    ids=range(8),
)
async def test_a_file_that_names_no_address_is_passed_over(tmp_path: Path, text: str) -> None:
    """A power failure may tear the file, or another program may own it; the node's next incarnation starts anew."""
    news: asyncio.Queue[Addresses] = asyncio.Queue()
    (tmp_path / "n2").write_text(text)
    AddressDirectory(tmp_path, config_of("n1"), news.put_nowait).announce("n1", "127.0.0.1:41230")
    async with asyncio.timeout(10):
        assert await news.get() == {}
        AddressDirectory(tmp_path, config_of("n2"), lambda _: None).announce("n2", "127.0.0.1:41232")
        while (found := await news.get()) == {}:
            pass
    assert found == {"n2": ("127.0.0.1:41232", 1)}


def content(file: Path) -> str:
    return file.read_text() if file.is_file() else ""


async def appears(file: Path) -> str:
    """Wait until the file has content, and return it."""
    for _ in range(1000):
        if text := content(file):
            return text
        await asyncio.sleep(0.01)
    raise TimeoutError(file)


async def test_a_node_that_runs_on_writes_its_file_again_after_a_wipe(tmp_path: Path) -> None:
    """A peer that starts later must find the address; peers that know it see no change."""
    book, news = tmp_path / "book", asyncio.Queue[Addresses]()
    AddressDirectory(book, config_of("n1"), news.put_nowait).announce("n1", "127.0.0.1:41230")
    AddressDirectory(book, config_of("n2"), lambda _: None).announce("n2", "127.0.0.1:41231")
    before = (book / "n2").read_text()
    shutil.rmtree(book)
    assert await appears(book / "n2") == before
    late: asyncio.Queue[Addresses] = asyncio.Queue()
    AddressDirectory(book, config_of("n1"), late.put_nowait).announce("n1", "127.0.0.1:41232")
    async with asyncio.timeout(10):
        assert await late.get() == {"n2": ("127.0.0.1:41231", 1)}
        while not news.empty():
            assert news.get_nowait() in ({}, {"n2": ("127.0.0.1:41231", 1)})


async def test_a_node_that_runs_on_replaces_no_file_of_a_later_life(tmp_path: Path) -> None:
    """The earlier incarnation may find its file missing just before the later one writes it."""
    early = AddressDirectory(tmp_path, config_of("n2"), lambda _: None)
    early.announce("n2", "127.0.0.1:41231")
    wipe(tmp_path)
    AddressDirectory(tmp_path, config_of("n2"), lambda _: None).announce("n2", "127.0.0.1:41232")
    early._create()
    assert "127.0.0.1:41232" in (tmp_path / "n2").read_text()


async def test_a_directory_that_cannot_be_written_any_more_is_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node goes on, retries, and still sees its peers' addresses."""
    monkeypatch.setattr(AddressDirectory, "INTERVAL_S", 0.01)
    book, news = tmp_path / "book", asyncio.Queue[Addresses]()
    AddressDirectory(book, config_of("n1"), news.put_nowait).announce("n1", "127.0.0.1:41230")
    shutil.rmtree(book)
    book.write_text("no directory")
    async with asyncio.timeout(10):
        for _ in range(5):
            await news.get()
    [line] = caplog.messages
    assert line.startswith(f"--address-book: {book}/n1 is missing and cannot be written: File exists; ")
    book.unlink()
    assert "127.0.0.1:41230" in await appears(book / "n1")


async def test_a_file_that_could_not_be_written_whole_is_not_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A torn file would not be missing, so the node would not write it again once there is room."""
    directory = AddressDirectory(tmp_path, config_of("n1"), lambda _: None)
    directory.announce("n1", "127.0.0.1:41230")
    wipe(tmp_path)

    def open_full(path: Path, _: str) -> TextIO:
        path.touch()
        return open("/dev/full", "w", encoding="utf-8")  # noqa: PTH123 - Path.open is what is replaced

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", open_full)
        directory._restore()
    assert not (tmp_path / "n1").exists()
    directory._restore()
    assert (tmp_path / "n1").exists()
