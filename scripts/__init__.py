"""What `make` runs: Python's standard library alone, because it runs before pip."""
