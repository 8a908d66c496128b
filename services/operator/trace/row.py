"""The row that a person asks for: its key as they type it, and what the warehouse has of it."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence
from uuid import UUID

import asyncpg

from contracts.column_types import Kind
from contracts.contract import Contract
from contracts.tables import Calendar, Column, Fact, WarehouseTable
from services.operator.errors import UsageError
from services.operator.proof.comparison import Key
from services.operator.render import printable
from services.operator.trace.life import StarRow
from shared.ledger import key_parameter
from shared.sql import quoted

_WHOLE_NUMBER = re.compile(r"[+-]?\d{1,19}", re.ASCII)
_LIMITS = {Kind.INTEGER: 2**31, Kind.BIGINT: 2**63}


def parsed_key(table: WarehouseTable, texts: Sequence[str]) -> Key:
    """The key that a person has typed, a value for each column. Raises: UsageError."""
    if len(texts) != len(table.key):
        raise UsageError(
            f"a row of '{table.name}' is named by {len(table.key)} of its columns ({', '.join(table.key)}), "
            f"not by {len(texts)} values; give one value for each, in this order"
        )
    return tuple(_parsed(table.column(name), text) for name, text in zip(table.key, texts, strict=True))


def _parsed(column: Column, text: str) -> int | str:
    kind, limit = column.type.kind, _LIMITS.get(column.type.kind)
    expected = "a text in UTF-8"
    try:
        if limit is not None:
            expected = f"a whole number from {-limit} to {limit - 1}"
            return _whole_number(text, limit)
        if kind is Kind.DATE:
            expected = "a date (YYYY-MM-DD)"
            return dt.date.fromisoformat(text).isoformat()
        if column.type.is_moment:
            expected = f"a {kind} (YYYY-MM-DD HH:MM:SS)"
            return _as_postgresql_spells(dt.datetime.fromisoformat(text), kind)
        if kind is Kind.VERBATIM:  # of keys: a uuid, which quarantine and key lists have as PostgreSQL spells it
            expected = "a uuid"
            return str(UUID(text))
        text.encode()
    except ValueError:
        raise UsageError(f"'{column.name}' is {expected}, not '{printable(text)}'; correct the key") from None
    return text


def _whole_number(text: str, limit: int) -> int:
    if not _WHOLE_NUMBER.fullmatch(text) or not -limit <= int(text) < limit:
        raise ValueError(text)
    return int(text)


def _as_postgresql_spells(moment: dt.datetime, kind: Kind) -> str:
    """A timestamp as in a key list; one without a zone is taken as UTC if the column has one."""
    if kind is Kind.TIMESTAMPTZ and moment.tzinfo is not None:
        moment = moment.astimezone(dt.UTC)
    elif moment.tzinfo is not None:
        raise ValueError("a timestamp without time zone has no offset")
    text = moment.replace(tzinfo=None).isoformat(sep=" ")
    return (text.rstrip("0") if "." in text else text) + ("+00" if kind is Kind.TIMESTAMPTZ else "")


async def read_rows(warehouse: asyncpg.Connection, contract: Contract, table: WarehouseTable, key: Key) -> tuple[StarRow, ...]:
    """What the warehouse has of a key, the newest first; nothing before the first load."""
    relation = quoted(contract.warehouse_schema, table.name)
    if await warehouse.fetchval("SELECT to_regclass($1) IS NULL", relation):
        return ()
    surrogate, version = (table.surrogate, table.version) if isinstance(table, Fact) else (None, ())
    names = [*([surrogate] if surrogate else []), *table.star_types]
    values = ", ".join(f"{quoted(name)}::text" for name in names)
    newest_first = ", ".join(f"{quoted(name)} DESC" for name in ("_run", *version))
    same = " AND ".join(f"{quoted(name)} = {key_parameter(table, position)}" for position, name in enumerate(table.key))
    found = await warehouse.fetch(
        f"SELECT ARRAY[{values}] AS values, _run, _batch_id, _loaded_at, _deleted_at "
        f"FROM {relation} WHERE {same} ORDER BY {newest_first}",
        *map(str, key),
    )
    rows = []
    for place, row in enumerate(found):
        texts = dict(zip(names, row["values"], strict=True))
        rows.append(
            StarRow(
                values=texts,
                version=tuple(texts[name] for name in version),
                run=row["_run"],
                batch_id=row["_batch_id"],
                loaded_at=row["_loaded_at"],
                deleted_at=row["_deleted_at"],
                current=place == 0 and row["_deleted_at"] is None,
                inferred=row["_run"] == 0 and not isinstance(table, Calendar),
            )
        )
    return tuple(rows)
