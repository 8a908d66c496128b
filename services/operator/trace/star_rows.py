"""The row that a person asks for: its key as they type it, and what the warehouse has of it."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

import asyncpg

from contracts.column_types import Kind
from contracts.contract import Contract
from contracts.tables import Column, Fact, WarehouseTable
from services.operator.exit_codes import ComplaintError, ExitCode
from services.operator.proof.comparison import Key
from shared.ledger import key_parameter
from shared.sql import quoted

_WHOLE_NUMBER = re.compile(r"[+-]?\d{1,19}", re.ASCII)
_LIMITS = {Kind.INTEGER: 2**31, Kind.BIGINT: 2**63}


@dataclass(frozen=True, slots=True)
class StarRow:
    """A row of the warehouse: of a fact, one version. `values` are the texts of its columns, its surrogate first.

    `loaded_at` is when the load's transaction merged it, `deleted_at` when the source was seen without it.
    """

    values: Mapping[str, str | None]
    run: int
    batch_id: UUID | None
    loaded_at: dt.datetime
    deleted_at: dt.datetime | None
    is_newest: bool

    @property
    def is_inferred(self) -> bool:
        """Whether it was made up because a fact needed it."""
        return self.run == 0

    @property
    def is_current(self) -> bool:
        """Whether it is what the warehouse shows of its key."""
        return self.is_newest and self.deleted_at is None


def parsed_key(table: WarehouseTable, texts: Sequence[str]) -> Key:
    """The key that a person has typed, a value for each column. Raises: ComplaintError."""
    if len(texts) != len(table.key):
        names = ", ".join(table.key)
        raise ComplaintError(
            f"a row of '{table.name}' is named by {len(table.key)} of its columns ({names}), not by {len(texts)} values; "
            "give one value for each, in this order",
            ExitCode.USAGE,
        )
    return tuple(_parsed(table.column(name), text) for name, text in zip(table.key, texts, strict=True))


def _parsed(column: Column, text: str) -> int | str:
    limit = _LIMITS.get(column.type.kind)
    if limit is not None:
        if _WHOLE_NUMBER.fullmatch(text) and -limit <= int(text) < limit:
            return int(text)
        raise ComplaintError(
            f"'{column.name}' is a whole number from {-limit} to {limit - 1}, not '{text}'; correct the key", ExitCode.USAGE
        )
    if column.type.kind is Kind.DATE:
        try:
            return dt.date.fromisoformat(text).isoformat()
        except ValueError:
            raise ComplaintError(
                f"'{column.name}' is a date (YYYY-MM-DD), not '{text}'; correct the key", ExitCode.USAGE
            ) from None
    if column.type.is_moment:
        try:
            return _as_postgresql_spells(dt.datetime.fromisoformat(text), column.type.kind)
        except ValueError:
            raise ComplaintError(
                f"'{column.name}' is a {column.type.kind} (YYYY-MM-DD HH:MM:SS), not '{text}'; correct the key", ExitCode.USAGE
            ) from None
    if column.type.kind is Kind.VERBATIM:  # of keys: a uuid, which quarantine and key lists have as PostgreSQL spells it
        try:
            return str(UUID(text))
        except ValueError:
            raise ComplaintError(f"'{column.name}' is a uuid, not '{text}'; correct the key", ExitCode.USAGE) from None
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ComplaintError(
            f"'{column.name}' is a text, and what was typed is no UTF-8; correct the key", ExitCode.USAGE
        ) from None
    return text


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
    return tuple(
        StarRow(
            values=dict(zip(names, row["values"], strict=True)),
            run=row["_run"],
            batch_id=row["_batch_id"],
            loaded_at=row["_loaded_at"],
            deleted_at=row["_deleted_at"],
            is_newest=place == 0,
        )
        for place, row in enumerate(found)
    )
