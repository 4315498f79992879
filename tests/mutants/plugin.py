"""A pytest plugin: `pytest -p tests.mutants.plugin --mutant NAME ...` runs tests on the product with that bug."""

from __future__ import annotations

import contextlib

import pytest

from tests.mutants.catalogue import mutants
from tests.mutants.edit import planted

_STACK = contextlib.ExitStack()


def pytest_addoption(parser: pytest.Parser) -> None:
    """As in pytest."""
    parser.addoption("--mutant", required=True, help="name of a mutant of tests/mutants/planted")


def pytest_configure(config: pytest.Config) -> None:
    """As in pytest."""
    _STACK.enter_context(planted(mutants()[config.getoption("--mutant")].edits))


def pytest_unconfigure() -> None:
    """As in pytest."""
    _STACK.close()
