"""Clusters of real processes on Ray. Only this package imports ray."""

from __future__ import annotations

import os

# Ray reads both while it is imported, so they are set here, before any module of this package imports it.
# Otherwise, under `uv run`, Ray would upload the working directory and start uv in every worker.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
