"""Check that every locked package can be installed on each platform that the README names. Needs the network.

    python -m tools.platforms

A package passes if the index has a wheel for the platform and the Python, or if it is known to be pure Python and is built from
source in seconds. Nothing is installed. Exit code 0 if every lock passes.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

LOCKS = Path(__file__).parents[1] / "infra" / "locks"
PLATFORMS = {
    "Linux x86-64": "x86_64-manylinux_2_35",
    "Linux arm64": "aarch64-manylinux_2_35",
    "macOS arm64": "aarch64-apple-darwin",
}
PYTHONS = {"localstack-py311": ("3.11", "3.12"), "localstack-py313": ("3.13",)}  # by lock; the other locks hold for all three
NOWHERE = str(Path(tempfile.gettempdir()) / "starlift-platforms")  # uv wants a place although it installs nothing
# Published as source only, and pure Python: no compiler is needed.
FROM_SOURCE = ("airspeed-ext", "crontab", "jsonpath-rw", "localstack-client")


def main() -> int:
    """Print a line for each lock, platform and Python."""
    is_clean = True
    for lock in sorted(LOCKS.glob("*.txt")):
        for name, platform in PLATFORMS.items():
            for python in PYTHONS.get(lock.stem, ("3.11", "3.12", "3.13")):
                problem = missing(lock, platform, python)
                is_clean = is_clean and not problem
                print(f"{lock.stem:18} {name:13} Python {python}: {problem or 'every package has a wheel'}", flush=True)
    return 0 if is_clean else 1


def missing(lock: Path, platform: str, python: str) -> str:
    """What cannot be installed from `lock`, in uv's words; empty if everything can."""
    uv = [str(Path(sys.executable).with_name("uv")), "pip", "install", "--dry-run", "--quiet", "--no-deps", "--require-hashes"]
    wheels = ["--only-binary", ":all:", *(word for package in FROM_SOURCE for word in ("--no-binary", package))]
    target = ["--python-platform", platform, "--python-version", python, "--target", NOWHERE, "--requirement", str(lock)]
    answer = subprocess.run([*uv, *wheels, *target], capture_output=True, text=True, check=False)  # noqa: S603 - our own arguments
    return "" if answer.returncode == 0 else " ".join(answer.stderr.split())


if __name__ == "__main__":
    sys.exit(main())
