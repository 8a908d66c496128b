"""Expressions of a contract, computed in Python and rendered as SQL: a test holds the two equal, operation by operation."""
