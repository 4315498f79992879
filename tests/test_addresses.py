"""Host and port are joined and split in one module, which refuses ambiguous forms."""

from __future__ import annotations

import re

import pytest

from raft_actor_node.addresses import checked_address, checked_host, every_interface, join_address, split_address
from tests.test_architecture import ROOT, modules


@pytest.mark.parametrize(
    ("host", "joined"),
    [
        ("127.0.0.1", "127.0.0.1:41233"),
        ("vm-1.example.org", "vm-1.example.org:41233"),
        ("::1", "[::1]:41233"),
        ("[::1]", "[::1]:41233"),
        ("fe80::1%eth0", "[fe80::1%eth0]:41233"),
        ("::ffff:10.0.0.1", "[::ffff:10.0.0.1]:41233"),
    ],
)
def test_what_is_joined_is_split_again(host: str, joined: str) -> None:
    assert join_address(host, 41233) == joined
    assert split_address(joined)[1] == 41233
    assert checked_address(joined) == join_address(*split_address(joined))


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("127.0.0.1", "the port is missing"),
        ("", "the port is missing"),
        ("[::1]", "the port is missing"),
        ("::1:41233", "an IPv6 address needs brackets"),
        ("::1", "an IPv6 address needs brackets"),
        ("fd00::7:41233", "an IPv6 address needs brackets"),
        ("127.0.0.1:41233:0", "it has more than one colon"),
        ("127.0.0.1:", "from 1 to 65535"),
        ("127.0.0.1:0", "from 1 to 65535"),
        ("127.0.0.1:65536", "from 1 to 65535"),
        ("127.0.0.1:" + "9" * 5000, "from 1 to 65535"),
        ("127.0.0.1:-1", "from 1 to 65535"),
        ("127.0.0.1:http", "from 1 to 65535"),
        ("127.0.0.1:\N{FULLWIDTH DIGIT FOUR}1233", "from 1 to 65535"),
        (":41233", "'' is not a host name"),
        ("[]:41233", "'[]' is not an IPv6 address"),
        ("[127.0.0.1]:41233", "'[127.0.0.1]' is not an IPv6 address"),
        ("a b:41233", "'a b' is not a host name"),
        ("dns:///vm1:41233", "leave out dns://"),
        ("http://127.0.0.1:80", "leave out http://"),
        ("http://127.0.0.1", "leave out http://"),
        ("ray://x:1", "leave out ray://"),
        ("unix:41233/socket", "from 1 to 65535"),
    ],
)
def test_another_form_is_refused_with_what_is_allowed(address: str, why: str) -> None:
    with pytest.raises(ValueError, match=r"^must be host:port, such as .* or \[::1\]:41233, not ") as refused:
        split_address(address)
    assert why in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("address", [None, 41233, ("127.0.0.1", 41233), b"127.0.0.1:41233"])
def test_what_is_no_text_is_refused(address: object) -> None:
    with pytest.raises(ValueError, match="must be host:port"):
        split_address(address)


def test_a_host_has_no_port() -> None:
    assert [checked_host(host) for host in ("::1", "[::1]", "0:0::1", "localhost")] == [
        "::1",
        "::1",
        "::1",
        "localhost",
    ]
    for host in ("127.0.0.1:80", "[::1]:80", "", "a/b"):
        with pytest.raises(ValueError, match="is not"):
            checked_host(host)


def test_a_host_of_ipv6_listens_on_ipv6() -> None:
    assert [every_interface(host) for host in ("10.0.0.1", "vm1", "fd00::1")] == ["0.0.0.0", "0.0.0.0", "::"]


def test_no_other_module_joins_or_splits_an_address() -> None:
    """Only tests may join a host and a port by a colon alone, because IPv6 needs brackets."""
    by_hand = re.compile(r"\}:\{[^}]*port|(?:host|address|interface)[^{}\n]*\}:0|address\w*\.r?(?:split|partition)\(")
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in modules()
        if path != ROOT / "raft_actor_node" / "addresses.py"
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if by_hand.search(line)
    ]
    assert found == []
