"""Whether a service is alive: its consumer, or any of its consumers, writes a file at every turn of its loop.

`python -m shared.health FILE MAX_AGE_S` exits with 0 while the file is young enough, else with 1.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path


def beat(file: Path, waiting_for: Sequence[str]) -> None:
    """Record a turn of the loop: write `ready`, or which dependencies the service waits for."""
    file.write_text(f"waiting for {', '.join(waiting_for)}\n" if waiting_for else "ready\n")


def is_alive(file: Path, maximum_age: timedelta) -> bool:
    """Whether the last beat is recent."""
    try:
        return time.time() - file.stat().st_mtime <= maximum_age.total_seconds()
    except FileNotFoundError:
        return False


def main(arguments: Sequence[str]) -> int:
    """Exit code 0 for alive, 1 for not."""
    file, seconds = arguments
    return 0 if is_alive(Path(file), timedelta(seconds=float(seconds))) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
