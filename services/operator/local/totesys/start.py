"""The writer as a process of the local stack. The program itself also runs without psutil, as in the operator's image."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

from infra.local.processes import Child, python, start
from infra.local.state import neutral_environment


def start_writing(url: str, *, per_second: float, lasting: timedelta, seed: int, log: Path, cancelling: bool = False) -> Child:
    """Start a process that writes to the source as the application does, and ends after `lasting`.

    With `cancelling` it also deletes rows.
    """
    options = ["--rate", str(per_second), "--seconds", str(lasting.total_seconds()), "--seed", str(seed)]
    options += ["--cancel"] if cancelling else []
    environment = neutral_environment(os.environ) | {"TOTESYS_URL": url}
    return start(python(__package__, "write", *options), log=log, environment=environment)
