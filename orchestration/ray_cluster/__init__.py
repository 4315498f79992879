"""Clusters of real processes on Ray. The only place of the project that imports ray."""

from __future__ import annotations

import os

# Both are read while ray is imported, so they are set here, before any module of this package does that.
# Under `uv run` Ray would upload the working directory and start uv again in every worker.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
