"""The analysis of a cell's arrays and events, from latencies to failovers. Pure functions."""
