"""Every link of the manual leads to an existing target, and every page can be reached."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.docs.pages import PAGES, ROOT, anchors, blocks, name, prose

ROOMS = ("raft_actor_node", "orchestration", "chaos", "sweeps", "proto", "tests", "docs")
FILES = [file.as_posix() for room in ROOMS for file in (ROOT / room).rglob("*.*")] + [f"{ROOT}/CHANGELOG.md"]
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def links(page: Path) -> list[str]:
    return [target for target in LINK.findall(prose(page)) if not re.match(r"[a-z]+:", target)]


def leads_to(page: Path, target: str) -> Path:
    path = unquote(target).partition("#")[0]
    return (page.parent / path).resolve() if path else page


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_to_files_and_headings_that_exist(page: Path) -> None:
    broken = []
    for target in links(page):
        found, anchor = leads_to(page, target), target.partition("#")[2]
        if not found.exists() or (anchor and found.suffix == ".md" and anchor not in anchors(found)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_files_that_are_named_in_code_exist(page: Path) -> None:
    """`sweeps/cli.py`, or, where the folder is clear, `cli.py` or `runtime/wal.py`."""
    named = re.findall(r"`([\w-]+(?:/[\w-]+)*\.(?:py|proto|yaml|md|diff))`", page.read_text(encoding="utf-8"))
    own = {block.notes.get("file") for block in blocks(page)} | {"spec.yaml"}
    assert [path for path in named if path not in own and not any(file.endswith(f"/{path}") for file in FILES)] == []


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached: set[Path] = set()
    new = {ROOT / "README.md"}
    while new:
        reached |= new
        new = {leads_to(page, target) for page in new for target in links(page) if page.suffix == ".md"} - reached
        new = {page for page in new if page.suffix == ".md" and page.is_file()}
    assert [name(page) for page in PAGES if page not in reached] == []


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_every_picture_is_shown_somewhere() -> None:
    shown = {leads_to(page, target) for page in PAGES for target in links(page)}
    assert [picture.name for picture in (ROOT / "docs/pictures").glob("*.svg") if picture not in shown] == []
