"""What a sweep is to do: parameters, files and options, cells, rules, metrics, thresholds."""
