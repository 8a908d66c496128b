"""Plants mistakes in a copy of the checkout's infrastructure."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.infra.offline.tools import CHECKOUT

_TOPOLOGY = "infra/topology.json"
Plant = Callable[..., Path]


@dataclass(frozen=True, slots=True)
class Mistake:
    """`file` contains `new` instead of `old`; a check then reports `words`."""

    name: str
    file: str
    old: str
    new: str
    words: str


def plant(tree: Path, *mistakes: Mistake) -> Path:
    """Make a copy of the checkout's infrastructure in `tree`, with these mistakes in it."""
    shutil.copytree(CHECKOUT / "infra/terraform", tree / "infra/terraform", ignore=shutil.ignore_patterns(".terraform*"))
    shutil.copytree(CHECKOUT / "infra/docker", tree / "infra/docker")
    shutil.copytree(CHECKOUT / ".github", tree / ".github")
    shutil.copy(CHECKOUT / _TOPOLOGY, tree / _TOPOLOGY)
    for mistake in mistakes:
        file = tree / mistake.file
        text = file.read_text(encoding="utf-8")
        assert mistake.old in text, f"{mistake.name} has nowhere to stand"
        file.write_text(text.replace(mistake.old, mistake.new), encoding="utf-8")
    return tree


def named(mistake: Mistake) -> str:
    """The name of a mistake, for the name of its test."""
    return mistake.name
