"""README.md lists the tests of the rules of the paper; these tests check the list."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent
TESTS = HERE.parent
SECTIONS = {"5.1": 8, "5.2": 18, "5.3": 23, "5.4": 13, "8": 16, "Figure 2": 29}
"""The least number of rules in each section, so that removing one needs a decision."""


def table() -> list[tuple[str, str, str, str]]:
    """(section, rule, file, test) of every row."""
    rows, section = [], ""
    for line in (HERE / "README.md").read_text(encoding="utf-8").splitlines():
        if heading := re.match(r"## ([\d.]+|Figure 2)", line):
            section = heading[1]
        elif row := re.fullmatch(r"\| (.+) \| (\w+/\w+\.py) \| (\w+) \|", line):
            rows.append((section, row[1], row[2], f"test_{row[3]}"))
        else:
            assert not line.startswith("|") or line in (
                "|---|---|---|",
                "| rule | file | test |",
                "| line | file | test |",
            )
    return rows


def docstrings(file: str) -> dict[str, str]:
    """The docstring of every test in a file."""
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    return {
        node.name: ast.get_docstring(node) or ""
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


@pytest.mark.parametrize(("section", "rules"), SECTIONS.items())
def test_every_section_has_its_rules(section: str, rules: int) -> None:
    """No rule of a section goes missing, and none is listed twice."""
    found = [rule for at, rule, _, _ in table() if at == section]
    assert len(found) >= rules
    assert len(set(found)) == len(found)


def test_every_test_of_the_table_exists_and_names_its_section() -> None:
    """A row names a test whose docstring names the section."""
    wrong = []
    for section, rule, file, test in table():
        text = docstrings(file).get(test)
        if text is None:
            wrong.append(f"{rule}: {file} has no {test}")
        elif section != "Figure 2" and not re.search(rf"\b{re.escape(section)}\b|Figure [278]", text):
            wrong.append(f"{rule}: {test} does not name section {section}")
    assert not wrong, "\n".join(wrong)


def test_every_test_of_this_folder_is_in_the_table() -> None:
    """Only rules of the paper belong here, except for controls of the stories."""
    known = {(file, test) for _, _, file, test in table()}
    for file in ("paper/test_rules.py", "paper/test_figures.py"):
        controls = {"test_what_is_not_seen_is_missed", "test_a_command_that_does_not_exist_is_refused"}
        assert {(file, test) for test in docstrings(file)} - known <= {(file, test) for test in controls}
