"""The proof of a source whose application keeps writing and deleting."""

from __future__ import annotations

from pathlib import Path

from services.operator.local.totesys.start import start_writing
from tests.end_to_end.conftest import Databases, Starlift
from tests.fixtures.limits import HANG

WRITES_PER_SECOND = 60.0
PROOFS = 4


def test_no_row_is_reported_different_while_writing_continues(shared: Starlift, databases: Databases, tmp_path: Path) -> None:
    log = tmp_path / "application.log"
    writer = start_writing(databases.owner, per_second=WRITES_PER_SECOND, lasting=HANG, seed=11, log=log, cancelling=True)
    try:
        for _ in range(PROOFS):
            verdict = shared("verify", "--settle", "0", "--json").json
            assert [table["differences"] for table in verdict["tables"].values() if table["differences"]] == []
        assert writer.exit_code() is None, log.read_text()
    finally:
        writer.stop(within=HANG)
    assert writer.exit_code() == 0, log.read_text()
    shared("ingest", "--wait", "--compare-keys")
    verdict = shared("verify", "--json").json
    assert (verdict["equal"], verdict["in_flight"]) == (True, 0)
