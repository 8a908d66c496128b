"""Servers for tests that do what nobody does to a server that others use: copy it, follow it, move its transaction ids."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from infra.local.ports import LOOPBACK, free_port
from infra.local.postgres import SUPERUSER
from infra.local.postgres_binaries import find_binaries, readable_by
from infra.local.sql import execute, fetch_value
from infra.local.unprivileged import popen_options, reachable_directory, remove_place
from tests.postgres_cluster import TestCluster

TRANSACTIONS_A_SEGMENT = 32 * 8192 * 4  # in one file of pg_xact: two bits a transaction
SEGMENT_BYTES = 32 * 8192


class ScratchCluster(TestCluster):
    """A durable server of one test's own."""

    @property
    def data(self) -> Path:
        """Its data directory."""
        return reachable_directory(self._state, self._account) / self.name

    def start_again(self) -> None:
        """With the data that is there now."""
        self.start(self.port or free_port())

    def run(self, program: str, *arguments: str) -> None:
        """One of PostgreSQL's own programs, as the server's account."""
        place = self.data.parent
        binaries = readable_by(self._account, find_binaries(), place)
        done = subprocess.run(
            [binaries.program(program), *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=place,
            env={"PATH": os.defpath, "LC_ALL": "C", "PGPASSWORD": self.password(SUPERUSER)},
            **popen_options(self._account),
        )
        assert done.returncode == 0, done.stderr

    def backup(self, place: Path) -> None:
        """A cold copy of the data; the server stands still."""
        shutil.copytree(self.data, place, symlinks=True)

    def restore(self, place: Path) -> None:
        """The data of a backup in the place of what there is; the server stands still."""
        shutil.rmtree(self.data)
        shutil.copytree(place, self.data, symlinks=True)
        self._hand_over(self.data)

    def standby(self, state: Path) -> Self:
        """A server that follows this one."""
        follower = type(self)("standby", state)
        state.mkdir(parents=True)
        follower._passwords = self._passwords
        follower.data.mkdir(mode=0o700)
        self._hand_over(follower.data)
        source = f"host={LOOPBACK} port={self.port} user={SUPERUSER} password={self.password(SUPERUSER)}"
        self.run("pg_basebackup", "-D", str(follower.data), "-d", source, "-R", "--checkpoint=fast")
        follower.start(free_port())
        return follower

    def move_next_xid(self, xid: int) -> None:
        """The next transaction gets the id `xid` (below 2^32, epoch 0). Rows older than 2^31 transactions must be frozen."""
        self.stop()
        segment = self.data / "pg_xact" / f"{xid // TRANSACTIONS_A_SEGMENT:04X}"
        if not segment.exists():
            segment.write_bytes(bytes(SEGMENT_BYTES))
            self._hand_over(segment)
        self.run("pg_resetwal", "-f", "-x", str(xid), "-D", str(self.data))
        self.start_again()

    def freeze(self) -> None:
        """Every row of every database is older than any transaction from now on."""
        execute(self.url(), "UPDATE pg_database SET datallowconn = true")
        names = fetch_value(self.url(), "SELECT array_agg(datname) FROM pg_database")
        for name in names:
            execute(self.url(name), "VACUUM FREEZE")
        execute(self.url(), "CHECKPOINT")

    def _hand_over(self, path: Path) -> None:
        if self._account is not None:
            for found in (path, *(path.rglob("*") if path.is_dir() else ())):
                os.chown(found, self._account.uid, self._account.gid)


@contextmanager
def scratch(name: str, state: Path) -> Iterator[ScratchCluster]:
    """A server that is removed at the end."""
    cluster = ScratchCluster(name, state)
    cluster.start(free_port())
    try:
        yield cluster
    finally:
        remove(cluster)


def remove(cluster: ScratchCluster) -> None:
    cluster.kill()
    remove_place(cluster._state)
    shutil.rmtree(cluster._state, ignore_errors=True)
