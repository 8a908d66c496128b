"""Remodelling: turns the source rows of a batch into star rows; a pure function of its message."""
