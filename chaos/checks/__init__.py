"""The checks of a finished cell: was the system correct, and does the run prove it?

One file per check. To add a check, write a file with a `CHECK` (base.py) and put it into the registry (registry.py).
Each check reads the files of the cell through `StoredEvidence` (evidence.py), so that a stored run is judged as it was
on the day. Around it stands a pure function of plain data, for tests and for callers without stored files.
"""
