"""Figures 7 and 8 of the paper as stories, compared with what is seen when they are played."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.paper.stage import play

HERE = Path(__file__).parent


@pytest.mark.parametrize("figure", ["figure7.txt", "figure8.txt"])
def test_the_figure_is_played_as_it_is_written(figure: str) -> None:
    """Every vote, entry, refusal and commit of the story, in its order (5.3, 5.4.1, 5.4.2).

    When a change of the core is meant to be seen, print the new story: `python -m tests.paper.stage FILE`.
    """
    story = (HERE / figure).read_text(encoding="utf-8")
    assert play(story).splitlines() == story.splitlines()


def test_what_is_not_seen_is_missed() -> None:
    """The control: a story that claims more or less than happens fails."""
    story = (HERE / "figure8.txt").read_text(encoding="utf-8")
    claim = story.replace("    S1 1 2 4\n    S2 1 2\n    S3 1 2\n", "    S1 [1 2] 4\n    S2 1 2\n    S3 1 2\n")
    silence = story.replace("    S2 erases its log from 2 on\n", "", 1)
    assert len({story, claim, silence}) == 3
    assert play(claim) == play(silence) == play(story) == story


def test_a_command_that_does_not_exist_is_refused() -> None:
    """A misprint must not silently change a story."""
    with pytest.raises(ValueError, match="S1 stnads"):
        play("term 1\nS1 1\n> S1 stnads\n")
