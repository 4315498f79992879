"""Fixtures of tests on hosts made of namespaces: marks, skips where namespaces are missing, a check for leftovers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from orchestration.testbed.hosts import Testbed, missing, reap, remains
from orchestration.testbed.ray_hosts import RayHosts, start_ray
from tests.remains import at_last


@pytest.hookimpl(tryfirst=True)  # before pytest reads the marks
def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Mark all tests of this folder: `make testbed` runs them, `make test` does not."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.testbed)


@pytest.hookimpl(tryfirst=True)  # before the fixtures, which would start hosts
def pytest_runtest_setup() -> None:
    """Skip the test with the reason if no testbed can be created."""
    if reason := missing():
        pytest.skip(reason)


@pytest.fixture(scope="session", autouse=True)
def no_testbed_remains() -> Iterator[None]:
    """Check after all tests, also failed ones, that no folder and no process is left.

    Then no namespace and no interface is left either. This includes the programs that the tests ran.
    """
    reap()
    yield
    assert at_last(remains) == []


@pytest.fixture(scope="module")
def bed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Testbed]:
    """Start as many hosts as HOSTS of the module says, or 4; they see the folders of tests."""
    hosts = getattr(request.module, "HOSTS", 4)
    with Testbed(hosts, shared=[tmp_path_factory.getbasetemp()]) as testbed:
        yield testbed


@pytest.fixture(scope="module")
def ray(bed: Testbed) -> RayHosts:
    """Start Ray on all hosts."""
    return start_ray(bed)
