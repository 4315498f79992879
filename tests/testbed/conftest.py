"""Tests on hosts out of namespaces: marked, skipped where none can be made, and nothing may be left of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from orchestration.testbed.hosts import Testbed, missing, reap, remains
from orchestration.testbed.ray_hosts import RayHosts, start_ray
from tests.remains import at_last


@pytest.hookimpl(tryfirst=True)  # before pytest looks at the marks
def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Mark all tests of this folder: `make testbed` runs them, `make test` does not."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.testbed)


@pytest.hookimpl(tryfirst=True)  # before the fixtures, which would bring hosts up
def pytest_runtest_setup() -> None:
    """Skip, and say why."""
    if reason := missing():
        pytest.skip(reason)


@pytest.fixture(scope="session", autouse=True)
def no_testbed_remains() -> Iterator[None]:
    """After all tests, those that failed too: no folder and no process, so no namespace and no interface, also not of
    programs that they ran."""
    reap()
    yield
    assert at_last(remains) == []


@pytest.fixture(scope="module")
def bed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Testbed]:
    """As many hosts as the module says by HOSTS, or 4; they see the folders of tests."""
    hosts = getattr(request.module, "HOSTS", 4)
    with Testbed(hosts, shared=[tmp_path_factory.getbasetemp()]) as testbed:
        yield testbed


@pytest.fixture(scope="module")
def ray(bed: Testbed) -> RayHosts:
    """Ray on all of them."""
    return start_ray(bed)
