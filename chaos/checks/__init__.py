"""The checks of a finished cell: was the system correct, and does the run prove it?

Each check has its own file. To add one, write a file with a `CHECK` (base.py) and add it to registry.py. Each check
reads the files of the cell through `StoredEvidence` (evidence.py), so a stored run gets the same verdict years later.
The core of each check is a pure function of plain data, so tests and callers without stored files can use it.
"""
