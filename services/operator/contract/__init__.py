"""Contracts made from a source's catalog: a first proposal, and the part that repeats the catalog."""
