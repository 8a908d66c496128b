"""The SQL that merges staged rows into the star. Pure text, derived from the contract.

Order-free and repeatable: a row is replaced by an image of the same or a higher run, never by one of a lower run, and an image
always leaves its run behind, even when its values are those already there. (A merge that skips equal values lets a late older
image win: A of run 5, A of run 7 skipped, then a late B of run 6 would stay.)

*A data set of increments with a version column* (decision 0022). An image counts by (W, version, run), where W, its whole run,
is the newest whole snapshot at its run. That is a total order, and a row keeps the greatest of its images so far; so neither
order nor repetition matters. W is first because a snapshot is the state of the source, whatever came before it: an increment of
before it has a lower W, however high its version. Without a version, runs alone give the same order, since W never falls as
runs rise.

A row's `_run` is then that of its greatest image, not the highest run that brought one. Everything else that compares it with
other runs stays right:

- *Tombstones.* One of run T says that no image of the key has a run from W(T) to T. So every image up to T has a lower whole
  run than W(T), and every later one has at least W(T): the greatest image is later than T if any image is. The row is alive
  then, and dead otherwise, as if `_run` were the highest run.
- *Late images* are asked about by the load that brings the greatest one: a comparison has seen the row that an image loses to,
  or the load of that row asks. A comparison may ask in vain about a row of which its own run has brought a smaller image.
- *Images that come again.* A repair of run R sends the truth's greatest image as (W, version, R), which replaces the same image
  and nothing that is greater. A full read announces the truth as a whole snapshot: its W is R, above everything.
- *A run that died* may have announced a whole snapshot, whose images count above those of later increments. It left the
  state as it was, so its delivery or its command comes again, and then counts above both.
- *Inferred members* have the whole run -1, below that of every image.

What takes the highest `_run` for the newest image is refused by the contract: versions of facts, history and filters of such a
data set (contracts/source_checks.py). A bulk load, in which a key may have rows of several versions, does not begin for it.

Staged columns are whole numbers and texts (shared.codecs), which COPY fastest; here they become dates, times, exact decimals.
"""

from __future__ import annotations

from collections.abc import Mapping

from contracts.contract import Contract
from contracts.tables import Column, Dimension, StoredTable, Versions, WarehouseTable
from contracts.warehouse import BATCH_ID, DELETED_AT, LEDGER, LOADED_AT, RUN, SEEN_AT, WHOLE_RUN
from shared.codecs import codec_of
from shared.sql import literal, quoted
from shared.star_schema.schema import relation


def staging_name(table: WarehouseTable) -> str:
    """The temporary table that rows of `table` are copied into."""
    return f"staged_{table.name}"


def create_staging(table: WarehouseTable) -> str:
    """A temporary table that ends with the transaction."""
    columns = ", ".join(f"{quoted(column.name)} {codec_of(column.type).staged}" for column in table.columns)
    return f"CREATE TEMPORARY TABLE {quoted(staging_name(table))} ({columns}) ON COMMIT DROP"


def merge_staged(contract: Contract, table: WarehouseTable) -> str:
    """Staged rows into their table; $1 is the run, $2 the batch and, if it has its data set's version, $3 the whole run.

    Deduplicated and sorted by key: two loaders then lock rows in the same order.
    """
    technical = {RUN: "$1::bigint", BATCH_ID: "$2::uuid", LOADED_AT: "clock_timestamp()"}
    if (version := contract.version_of(table)) is None:
        return f"{_insert_staged(contract, table, table, technical)} WHERE excluded.{RUN} >= t.{RUN}"
    technical[WHOLE_RUN] = "$3::bigint"
    new, held = (", ".join(quoted(row, name) for name in (WHOLE_RUN, version, RUN)) for row in ("excluded", "t"))
    return f"{_insert_staged(contract, table, table, technical, version)} WHERE ({new}) >= ({held})"


def add_versions(contract: Contract, dimension: Dimension, versions: Versions) -> str:
    """Staged rows into the table of versions, as what run $1 has seen at $3; $2 is the batch.

    Each run's row is one of its own, so it does not matter which of them comes first, or twice. The same batch comes again
    when its quarantine is replayed, perhaps under a corrected contract: as in the dimension, what comes last is kept.
    """
    technical = {RUN: "$1::bigint", BATCH_ID: "$2::uuid", LOADED_AT: "clock_timestamp()", SEEN_AT: "$3::timestamptz"}
    return _insert_staged(contract, dimension, versions, technical)


def add_missing_versions(contract: Contract, dimension: Dimension, versions: Versions) -> str:
    """Into the table of versions, the rows of the dimension that it lacks: those that an older loader has merged."""
    names = ", ".join(map(quoted, (*versions.star_types, RUN, BATCH_ID, LOADED_AT)))
    same = " AND ".join(f"{quoted('v', name)} = {quoted('d', name)}" for name in versions.identity)
    taken_at = f"SELECT l.snapshot_at FROM {contract.own(LEDGER)} AS l WHERE l.batch_id = d.{BATCH_ID}"
    seen = f"coalesce(({taken_at}), to_timestamp(d.{RUN} / 1000.0))"
    return (
        f"INSERT INTO {relation(contract, versions)} ({names}, {SEEN_AT}) SELECT {names}, {seen} "
        f"FROM {relation(contract, dimension)} AS d "
        f"WHERE d.{RUN} > 0 AND NOT EXISTS (SELECT FROM {relation(contract, versions)} AS v WHERE {same}) "
        f"AND NOT ({_is_made_unknown(contract, dimension, 'd')}) "
        f"ON CONFLICT DO NOTHING"
    )


def _insert_staged(
    contract: Contract, staged: WarehouseTable, table: StoredTable, technical: Mapping[str, str], version: str | None = None
) -> str:
    """Of the staged rows of one key, the one of the greatest version: it is staged as a whole number (source_checks.py)."""
    names = [quoted(column.name) for column in table.columns]
    values = [f"{codec_of(column.type).loaded(quoted('s', column.name))} AS {quoted(column.name)}" for column in table.columns]
    changed = [f"{quoted(name)} = excluded.{quoted(name)}" for name in table.star_types if name not in table.identity]
    changed += [f"{name} = excluded.{name}" for name in technical if name not in table.identity]
    ordered = ", ".join(quoted("s", name) for name in staged.identity)
    newest_first = ordered if version is None else f"{ordered}, {quoted('s', version)} DESC"
    return (
        f"INSERT INTO {relation(contract, table)} AS t ({', '.join([*names, *technical])}) "
        f"SELECT DISTINCT ON ({ordered}) {', '.join([*values, *technical.values()])} "
        f"FROM {quoted(staging_name(staged))} AS s ORDER BY {newest_first} "
        f"ON CONFLICT ({', '.join(map(quoted, table.identity))}) DO UPDATE SET {', '.join(changed)}, {DELETED_AT} = NULL"
    )


def insert_staged(contract: Contract, table: WarehouseTable) -> str:
    """Staged rows into their table, which has no key yet; $1 is the run, $2 the batch, $3 the moment."""
    names = ", ".join(quoted(column.name) for column in table.columns)
    values = ", ".join(codec_of(column.type).loaded(quoted("s", column.name)) for column in table.columns)
    return (
        f"INSERT INTO {relation(contract, table)} ({names}, _run, _batch_id, _loaded_at) "
        f"SELECT {values}, $1::bigint, $2::uuid, $3::timestamptz FROM {quoted(staging_name(table))} AS s"
    )


def delete_duplicates(contract: Contract, table: WarehouseTable) -> str:
    """Of the rows with the same identity in a table without a key, keep that of the highest run, and of these the last one."""
    identity = ", ".join(map(quoted, table.identity))
    order = "_run DESC, _loaded_at DESC, ctid DESC"
    ranked = (
        f"SELECT ctid, row_number() OVER (PARTITION BY {identity} ORDER BY {order}) AS place FROM {relation(contract, table)}"
    )
    return f"DELETE FROM {relation(contract, table)} AS t USING ({ranked}) AS r WHERE t.ctid = r.ctid AND r.place > 1"


def read_staged(table: WarehouseTable, column: Column) -> str:
    """Every staged value of a column as the warehouse's type, for nothing but to see that it can be read."""
    return f"SELECT count({codec_of(column.type).loaded(quoted('s', column.name))}) FROM {quoted(staging_name(table))} AS s"


def insert_inferred_members(
    contract: Contract, dimension: WarehouseTable, facts: tuple[WarehouseTable, ...], *, are_staged: bool = True
) -> str | None:
    """For each key of `dimension` that rows of `facts` refer to and that is not there yet, a member of run 0.

    The rows are the staged ones of batch $1 or, if none `are_staged`, those of the star. The real row, whose run is higher,
    overwrites the member. For staged rows it returns the keys inserted, as tombstones have them. None where no fact refers to
    the dimension.

    A member names a batch that referred to it, by which a proof can tell it from one made by hand after its last reference has
    changed. Nothing else depends on which of several batches that is.
    """
    missing = _missing_keys(contract, dimension, facts, are_staged=are_staged)
    if missing is None:
        return None
    key = dimension.column(dimension.key[0])
    required = [column for column in dimension.columns if not column.nullable and column.name != key.name]
    values = ["k.key", *(codec_of(column.type).stand_in or "NULL" for column in required)]
    names, batch = [quoted(column.name) for column in (key, *required)], "$1::uuid" if are_staged else f"k.{BATCH_ID}"
    returned = f" RETURNING jsonb_build_array({quoted(key.name)}) AS key" if are_staged else ""
    return (
        f"INSERT INTO {relation(contract, dimension)} ({', '.join(names)}, _run, {BATCH_ID}) "
        f"SELECT {', '.join(values)}, 0, {batch} FROM ({missing}) AS k "
        f"ORDER BY k.key ON CONFLICT DO NOTHING{returned}"
    )


def is_inferred(table: WarehouseTable) -> str:
    """Whether a row of a dimension is an inferred member: it has run 0, and only its key is known."""
    unknown = (
        f"{quoted(column.name)} IS NULL"
        if (stand_in := codec_of(column.type).stand_in) is None
        else f"({quoted(column.name)} IS NULL OR {quoted(column.name)} = {stand_in})"
        for column in table.columns
        if column.name not in table.key
    )
    return " AND ".join(["_run = 0", *unknown])


def except_unknown(table: StoredTable, alias: str) -> str:
    """As one more condition: a row is not the member that stands for no row of the source, which none could look up."""
    if not isinstance(table, Dimension) or table.unknown is None:
        return ""
    key = table.column(table.key[0])
    is_unknown = f"{quoted(alias, key.name)} = {literal(table.unknown)}::{key.type.unbounded_sql}"
    return f" AND NOT ({alias}.{RUN} = 0 AND {is_unknown})"


def restore_unknown(contract: Contract, dimension: Dimension) -> tuple[str, str]:
    """Restore the `unknown` row of a dimension if a person has changed it: lock the row, then check again and update it.

    No image from the source would replace it, and no look-up finds it gone. A real row with its key, which a batch brought,
    stays: a load that brings one has committed once the lock is held, and the second statement sees its batch.
    """
    key = quoted(dimension.key[0])
    values = {column: "NULL" if column.nullable else codec_of(column.type).stand_in or "NULL" for column in dimension.columns}
    changes = [f"{quoted(column.name)} = {value}" for column, value in values.items() if column.name not in dimension.key]
    changes += [f"{RUN} = 0", f"{BATCH_ID} = NULL", f"{DELETED_AT} = NULL"]
    changes += [f"{WHOLE_RUN} = DEFAULT"] if contract.version_of(dimension) else []
    named, is_right = f"{relation(contract, dimension)} AS d", f"{is_inferred(dimension)} AND {DELETED_AT} IS NULL"
    changed = f"{_is_made_unknown(contract, dimension, 'd')} AND NOT ({is_right})"
    return (
        f"SELECT {key} FROM {named} WHERE {changed} FOR NO KEY UPDATE",
        f"UPDATE {named} SET {', '.join(changes)} WHERE {changed}",
    )


def _is_made_unknown(contract: Contract, dimension: Dimension, alias: str) -> str:
    """Whether a row is the `unknown` row, even if it was changed: it has that key, and no batch has brought it."""
    if dimension.unknown is None:
        return "false"
    key = dimension.column(dimension.key[0])
    same = f"l.batch_id = {alias}.{BATCH_ID} AND l.run = {alias}.{RUN}"
    return (
        f"{quoted(alias, key.name)} = {literal(dimension.unknown)}::{key.type.unbounded_sql} "
        f"AND NOT EXISTS (SELECT FROM {contract.own(LEDGER)} AS l WHERE {same})"
    )


def select_referred_dates(
    contract: Contract, calendar: WarehouseTable, facts: tuple[WarehouseTable, ...], *, are_staged: bool = True
) -> str | None:
    """The dates that rows of `facts` refer to, in one order for all loaders: none waits for another in a circle."""
    referred = _referred_keys(contract, calendar, facts, are_staged=are_staged)
    return (
        None if referred is None else f"SELECT DISTINCT k.key AS date FROM ({referred}) AS k WHERE k.key IS NOT NULL ORDER BY 1"
    )


def merge_date(contract: Contract, calendar: WarehouseTable) -> str:
    """One date of the calendar, also correcting a row that was changed by hand; parameters in contract order.

    A date that is there and right is only read: ON CONFLICT locks the row it meets, even one that it leaves as it is, and all
    loads of that date would wait for each other's end. Parameters are texts, because asyncpg sends the last date that Python
    has, 9999-12-31, as infinity.
    """
    name, key = relation(contract, calendar), quoted(calendar.key[0])
    names = [quoted(column.name) for column in calendar.columns]
    parameters = (f"${n}::text::{column.type.sql}" for n, column in enumerate(calendar.columns, start=1))
    wanted, held, excluded = (", ".join(f"{alias}.{column}" for column in names) for alias in ("w", "d", "excluded"))
    return (
        f"INSERT INTO {name} AS d ({', '.join(names)}, _run) "
        f"SELECT {wanted}, 0 FROM (VALUES ({', '.join(parameters)})) AS w ({', '.join(names)}) "
        f"WHERE NOT EXISTS (SELECT FROM {name} AS d WHERE d.{key} = w.{key} AND ({held}) IS NOT DISTINCT FROM ({wanted})) "
        f"ON CONFLICT ({key}) DO UPDATE SET ({', '.join(names)}) = ROW({excluded}) WHERE ({held}) IS DISTINCT FROM ({excluded})"
    )


def _missing_keys(
    contract: Contract, dimension: WarehouseTable, facts: tuple[WarehouseTable, ...], *, are_staged: bool
) -> str | None:
    """An anti-join below the DISTINCT: usually next to nothing is missing, and there is next to nothing to sort."""
    referred = _referred_keys(contract, dimension, facts, are_staged=are_staged)
    if referred is None:
        return None
    there = f"SELECT FROM {relation(contract, dimension)} AS d WHERE d.{quoted(dimension.key[0])} = k.key"
    return f"SELECT DISTINCT ON (k.key) k.* FROM ({referred}) AS k WHERE k.key IS NOT NULL AND NOT EXISTS ({there})"


def _referred_keys(
    contract: Contract, dimension: WarehouseTable, facts: tuple[WarehouseTable, ...], *, are_staged: bool
) -> str | None:
    kind = dimension.column(dimension.key[0]).type
    selects = [
        f"SELECT {codec_of(kind).loaded(quoted(column.name))} AS key FROM {quoted(staging_name(fact))}"
        if are_staged
        else f"SELECT {quoted(column.name)} AS key, {BATCH_ID} FROM {relation(contract, fact)}"
        for fact in facts
        for column in fact.columns
        if column.references == dimension.name
    ]
    return " UNION ALL ".join(selects) or None
