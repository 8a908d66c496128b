"""Paths of a document: names joined by dots, of which the last one is a column and each before it a join."""

from __future__ import annotations

import re

_STEP = re.compile(r'"((?:[^"]|"")+)"|([^".]+)')


def steps_of(path: str) -> list[str]:
    """The names of a path; one that contains a dot is quoted, as in SQL. Raises: ValueError."""
    names, position = list[str](), 0
    while (found := _STEP.match(path, position)) is not None:
        names.append(found[2] if found[1] is None else found[1].replace('""', '"'))
        if found.end() == len(path):
            return names
        if path[found.end()] != ".":
            break
        position = found.end() + 1
    raise ValueError(f"'{path}' is not a path: names, joined by dots")


def quoted_step(name: str) -> str:
    """A name as a step of a path, whatever it contains."""
    return '"' + name.replace('"', '""') + '"' if {".", '"'} & set(name) else name
