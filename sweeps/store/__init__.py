"""The run directory: written, locked, and read back."""
