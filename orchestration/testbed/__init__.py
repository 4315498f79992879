"""Hosts made of Linux namespaces on one machine, with Ray on them; `make testbed-sweep` runs a sweep there."""
