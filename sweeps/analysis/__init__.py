"""What arrays and events of a cell say: pure functions, from latencies to failovers."""
