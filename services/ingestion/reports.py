"""What a run logs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import timedelta

import structlog

from contracts.messages import BatchIngested, Role
from services.ingestion.run import Run, held_back_since

_log = structlog.stdlib.get_logger()


def report_plan(run: Run, held_back_limit: timedelta) -> None:
    """Log why tables are read in full, and once each whatever a person may want to change at the source."""
    before, now, plan = run.before, run.facts, run.plan
    if plan.reasons:
        _log.info("full_read", run=run.number, reasons=plan.reasons, tables=sorted(plan.full_tables))
    for name, table in sorted(now.tables.items()):
        if table.new_columns and (before is None or table.described_columns != before.new_columns.get(name)):
            carried, columns = plan.carried.get(name, ()), table.described_columns
            if plan.contract.source_table(name).dataset is not None:  # the names of a record's members may be values
                columns = (f"{len(columns)} that `starlift status` lists",)
            _log.warning("new_columns", run=run.number, table=name, columns=columns, carried=carried)
        if not (table.has_row_versions or plan.contract.source_table(name).full) and (
            before is None or table.fingerprint != before.tables.get(name)
        ):
            advice = f"GRANT SELECT (xmin) ON {name} to the role that Starlift uses"
            _log.warning("row_versions_unreadable", run=run.number, table=name, advice=advice)
    since = held_back_since(now, before)
    if since is not None and before is not None and before.snapshot.taken_at - since <= held_back_limit:
        held_back = now.snapshot.taken_at - since
        if held_back > held_back_limit:
            behind = now.next_xid - now.snapshot.horizon
            seconds = round(held_back.total_seconds())
            _log.warning("horizon_held_back", run=run.number, seconds=seconds, transactions=behind)


def report_empty_table(run: Run, table: str) -> None:
    """Warn once that the keys of a table are not compared, since it has no row. Of a data set the refused delivery says so."""
    if table not in run.known_empty and run.plan.contract.source_table(table).dataset is None:
        advice = "if its rows were deleted: `starlift ingest --compare-keys --believe-empty`"
        _log.warning("empty_table_not_compared", run=run.number, table=table, advice=advice)


def report_batch(event: BatchIngested) -> None:
    """Log a batch that was announced."""
    rows = sum(extract.object.row_count for extract in event.data.extracts)
    _log.info("batch_ingested", run=event.data.run, batch_id=str(event.data.batch_id), rows=rows)


def report_end(run: Run, batches: Sequence[BatchIngested], compared: Iterable[str], took: timedelta) -> None:
    """Log what a completed run read, and the tables whose keys are compared."""
    gone = sum(len(missing.keys) for batch in batches for missing in batch.data.gone)
    extracts = [extract for batch in batches for extract in batch.data.extracts if extract.role is Role.BASE]
    rows = Counter[str]()
    for extract in extracts:
        rows[extract.table] += extract.object.row_count
    # What it costs that these tables have no transaction ids, or no key.
    in_full = {one.name: rows[one.name] for one in run.plan.contract.source_tables if one.full}
    _log.info(
        "run_completed",
        run=run.number,
        batches=len(batches),
        rows=rows.total(),
        compared=sorted(compared),
        gone=gone,
        seconds=round(took.total_seconds(), 3),
        **({"read_in_full": in_full} if in_full else {}),
    )
