"""Draw the pictures of README and manual from one real run: `make pictures`, about two minutes.

docs/pictures/live.svg       the live display, soon after a failover
docs/pictures/summary.svg    the table of results at the end of the run
docs/pictures/failover.svg   the five stages of the last failover of the run, from result.json
"""

from __future__ import annotations

import asyncio
import io
import re
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from rich.console import Console, RenderableType
from rich.terminal_theme import DEFAULT_TERMINAL_THEME

from orchestration.targets import Place
from sweeps.api import Run, Sweep
from sweeps.run.progress import Progress
from sweeps.show import tables
from sweeps.show.live import PlainView, screen
from sweeps.spec.metrics import STAGES

FOLDER = Path(__file__).parents[1] / "pictures"
WIDTH, HEIGHT = 106, 40
"""Columns and lines of the terminal in the pictures."""
NODES = [3, 5]


class Camera(PlainView):
    """A view that keeps one frame of the live display, from the last cell after its failover."""

    def __init__(self, progress: Progress) -> None:
        super().__init__(Console(), progress)
        self._shown, self._over = progress, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.frame = ""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.25):
            current = self._shown.current
            last = current is not None and current.position == len(self._shown.cells)
            # The second half of the measurement: the leader was killed, and clients are served again.
            if current is not None and last and current.phase == "measure" and 5 < self._shown.phase_s() < 8.5:
                self._shown.where = ""  # omit folders and ports of this machine
                self.frame = as_svg(screen(self._shown, HEIGHT), "sweep run quick")


def as_svg(shown: RenderableType, title: str) -> str:
    """Return the terminal's display of `shown` as SVG, without web fonts."""
    console = Console(record=True, width=WIDTH, height=HEIGHT, file=io.StringIO(), force_terminal=True)
    console.print(shown)
    svg = console.export_svg(title=title, theme=DEFAULT_TERMINAL_THEME, unique_id="terminal")
    svg = re.sub(r"@font-face \{.*?\n    \}\n", "", svg, flags=re.DOTALL)
    return svg.replace("font-family: Fira Code, monospace", "font-family: ui-monospace, Menlo, Consolas, monospace")


def failover_svg(failover: Mapping[str, Any], heading: str) -> str:
    """Return an SVG with the stages of one failover as bars; the axis begins at the loss of the leader."""
    times = [(stage, failover[f"{stage}_ms"]) for stage in STAGES if failover[f"{stage}_ms"] is not None]
    left, right, top, row = 130, 210, 70, 34
    scale = (900 - left - right) / max(time for _, time in times)
    height = top + row * len(times) + 44
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 900 {height}" width="900" height="{height}" '
            'font-family="ui-sans-serif, system-ui, Helvetica, Arial, sans-serif" font-size="14">'
        ),
        f'<rect width="900" height="{height}" rx="8" fill="#ffffff" stroke="#d0d7de"/>',
        f'<text x="20" y="32" font-size="16" font-weight="600" fill="#1f2328">{heading}</text>',
        f'<text x="20" y="54" fill="#59636e">ms since the leader, {failover["old_leader"]}, was killed</text>',
    ]
    before = 0.0
    for number, (stage, time) in enumerate(times):
        y = top + row * number
        begin, end = left + scale * min(before, time), left + scale * time
        parts += [
            f'<text x="{left - 12}" y="{y + 20}" text-anchor="end" font-weight="600" fill="#1f2328">{stage}</text>',
            f'<rect x="{left}" y="{y + 8}" width="{begin - left:.1f}" height="16" fill="#ddf4ff"/>',
            f'<rect x="{begin:.1f}" y="{y + 8}" width="{max(end - begin, 2):.1f}" height="16" fill="#0969da"/>',
            f'<text x="{end + 8:.1f}" y="{y + 20}" fill="#1f2328">{time:.0f} ms</text>',
        ]
        before = max(before, time)
    y = top + row * len(times) + 14
    step = next(step for step in (10, 20, 50, 100, 200, 500, 1000, 2000, 5000) if max(t for _, t in times) / step <= 8)
    parts.append(f'<path d="M{left} {y - 6}H{900 - right}" stroke="#59636e"/>')
    for tick in range(0, int(max(time for _, time in times)) + 1, step):
        x = left + scale * tick
        parts.append(f'<path d="M{x:.1f} {y - 6}v5" stroke="#59636e"/>')
        parts.append(f'<text x="{x:.1f}" y="{y + 14}" text-anchor="middle" font-size="12" fill="#59636e">{tick}</text>')
    parts.append("</svg>\n")
    return "\n".join(parts)


async def take(out: Path) -> tuple[str, Run]:
    """Run the sweep; return the frame as SVG, and the run. Exits if the run fails."""
    sweep = Sweep.from_preset("quick", overrides={"cluster.nodes": NODES})
    cameras: list[Camera] = []

    def view(progress: Progress) -> Camera:
        cameras.append(Camera(progress))
        return cameras[0]

    code, path = await sweep.execute(out, ["make", "pictures"], Place(), view, announce=print)
    run = Run.read(path, code)
    if code:
        sys.exit(f"the run ended with exit code {code}; no pictures were drawn")
    return cameras[0].frame, run


def draw(frame: str, run: Run) -> None:
    """Write the three pictures."""
    cells: Sequence[tuple[Any, Any]] = [(cell.stored.params, cell.result) for cell in run.cells]
    failover = [each for _, result in cells for each in result["failovers"]][-1]
    heading = f"One failover of a cluster of {NODES[-1]} nodes, election timeout 300 to 600 ms"
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "live.svg").write_text(frame, encoding="utf-8")
    (FOLDER / "summary.svg").write_text(as_svg(tables.summary(tables.rows(cells)), "sweep show"), encoding="utf-8")
    (FOLDER / "failover.svg").write_text(failover_svg(failover, heading), encoding="utf-8")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        draw(*asyncio.run(take(Path(folder))))
