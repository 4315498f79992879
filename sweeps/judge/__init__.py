"""The judgement on cells: the judging process, expectations, exit codes."""
