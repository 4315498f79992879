"""Execution of a run: its cells in sequence, the phases of each cell in order."""
