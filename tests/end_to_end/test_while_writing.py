"""The proof beside an application that does not stop writing, and deleting, for it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from services.operator.local.application import start_writing
from tests.end_to_end.conftest import Databases, Starlift

WRITES_PER_SECOND = 60.0
WRITING = timedelta(seconds=15)


def test_no_row_is_called_different_while_writing_goes_on(shared: Starlift, databases: Databases, tmp_path: Path) -> None:
    log = tmp_path / "application.log"
    writer = start_writing(databases.owner, per_second=WRITES_PER_SECOND, lasting=WRITING, seed=11, log=log, cancelling=True)
    proofs = 0
    while writer.exit_code() is None:
        verdict = shared("verify", "--settle", "0", "--json").json
        assert [table["differences"] for table in verdict["tables"].values() if table["differences"]] == []
        proofs += 1
    assert (writer.exit_code(), proofs > 2) == (0, True), log.read_text()
    shared("ingest", "--wait", "--compare-keys")
    verdict = shared("verify", "--json").json
    assert (verdict["equal"], verdict["in_flight"]) == (True, 0)
