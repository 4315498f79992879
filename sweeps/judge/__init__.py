"""Whether a cell was correct: the judging process, expectations, exit codes."""
