"""Hosts out of Linux namespaces on one machine, and Ray on them; `make testbed-sweep` runs a sweep there."""
