"""Every link of the manual leads somewhere, and every page of it can be reached."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.docs.pages import PAGES, ROOT, anchors, name, prose

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
