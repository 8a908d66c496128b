from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from infra.local.machine import is_noexec
from tests.fixtures.virtual_clock import VirtualClockLoop

pytest_plugins = ["tests.fixtures.localstack", "tests.fixtures.postgres_cluster"]


END_TO_END, INFRA = "tests/end_to_end/", "tests/infra/"
# Tests that share a stack, or a plan, that takes long to make: one worker runs them all.
TOGETHER = (END_TO_END, INFRA)
# Files of END_TO_END that start stacks of their own, and can run anywhere.
_ALONE = ("demo", "files_and_apis", "foreground", "installed_wheel", "kinds_of_sources", "mistakes", "tutorial", "two_builds")
ALONE = tuple(f"{END_TO_END}test_{name}.py" for name in _ALONE)
# What takes longest comes first, and the many short files at the end fill the gaps.
ORDER = (*TOGETHER, "tests/chaos/", "tests/fuzz/", "tests/integration/", "tests/conformance/", "tests/unit/")
# Files of more than ten seconds that are not at the head of the above anyway: each comes first among those of its directory,
# so that no worker begins one when the others have nothing left to do.
LONGEST = (
    "tests/integration/test_any_order.py",
    "tests/integration/test_dead_letter_volume.py",
    "tests/integration/test_deletes.py",
    "tests/integration/test_expressions.py",
    "tests/integration/test_history.py",
    "tests/integration/test_joins.py",
    "tests/integration/test_local_stack.py",
    "tests/integration/test_password_rotation.py",
    "tests/integration/test_pgbouncer.py",
    "tests/integration/test_poison.py",
    "tests/integration/test_random_contracts.py",
    "tests/unit/shared/consumer/test_state_machine.py",
)
APART = LONGEST[-1]  # its tests share nothing, and take longer than a third of all other unit tests


class ByPlace(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
    """A worker takes one file after another, a whole directory of those that share something, or a test of a file APART."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        if file == APART:
            return nodeid
        if file in ALONE:
            return file
        return next((place for place in TOGETHER if file.startswith(place)), file)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByPlace:
    config.option.loadscopereorder = False  # it would sort files by their number of tests, which says little of their time
    return ByPlace(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        items.sort(key=_position)


def _position(item: pytest.Item) -> tuple[int, bool]:
    place = next(place for place, start in enumerate(ORDER) if item.nodeid.startswith(start))
    return place, not item.nodeid.startswith(LONGEST)


MEMORY = Path("/dev/shm")  # noqa: S108 (the files in it get directories of their own, as in /tmp)
MEMORY_MINIMUM = 4 * 1024**3  # the whole suite needs a quarter of it at a time


def pytest_configure(config: pytest.Config) -> None:
    # Whatever a shell or a container says: without cached byte code, hundreds of processes compile all that they import.
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    # Set before any worker starts, so workers and all they start inherit it. Each test makes databases of some hundred files
    # and drops them again: on a disk, a third of the suite's CPU time goes to finding and freeing their inodes.
    is_fit = os.access(MEMORY, os.W_OK) and not is_noexec(MEMORY) and shutil.disk_usage(MEMORY).free >= MEMORY_MINIMUM
    if is_fit and "TMPDIR" not in os.environ:
        os.environ["TMPDIR"] = str(MEMORY)
        tempfile.tempdir = None  # decided anew
    config.addinivalue_line("markers", "begins_with(preparation): what the test's databases hold when it begins")
    config.addinivalue_line("markers", "virtual_clock: runs on an event loop whose clock jumps to the next timer")


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    if item.get_closest_marker("virtual_clock"):
        return {"virtual clock": VirtualClockLoop}
    return {"real clock": asyncio.new_event_loop}
