"""The row that a person asks for: its key as they type it, and what the warehouse has of it."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg

from contracts.contract import Contract
from contracts.tables import Calendar, Fact, WarehouseTable
from contracts.warehouse import BATCH_ID, DELETED_AT, LOADED_AT, RUN
from services.operator.errors import UsageError
from services.operator.star_keys import Key
from services.operator.trace.life import StarRow
from services.operator.wording import printable
from shared.codecs import codec_of
from shared.ledger import key_parameter
from shared.sql import quoted


def parsed_key(table: WarehouseTable, texts: Sequence[str]) -> Key:
    """The key that a person has typed, a value for each column. Raises: UsageError."""
    if len(texts) != len(table.key):
        raise UsageError(
            f"a row of '{table.name}' is named by {len(table.key)} of its columns ({', '.join(table.key)}), "
            f"not by {len(texts)} values; give one value for each, in this order"
        )
    key = []
    for name, text in zip(table.key, texts, strict=True):
        codec = codec_of(table.column(name).type)
        try:
            key.append(codec.parsed_key(text))
        except ValueError:
            raise UsageError(f"'{name}' is {codec.key_form}, not '{printable(text)}'; correct the key") from None
    return tuple(key)


async def read_rows(warehouse: asyncpg.Connection, contract: Contract, table: WarehouseTable, key: Key) -> tuple[StarRow, ...]:
    """What the warehouse has of a key, the newest first; nothing before the first load."""
    relation = quoted(contract.warehouse_schema, table.name)
    if await warehouse.fetchval("SELECT to_regclass($1) IS NULL", relation):
        return ()
    surrogate, version = (table.surrogate, table.version) if isinstance(table, Fact) else (None, ())
    names = [*([surrogate] if surrogate else []), *table.star_types]
    values = ", ".join(f"{quoted(name)}::text" for name in names)
    newest_first = ", ".join(f"{quoted(name)} DESC" for name in (RUN, *version))
    same = " AND ".join(f"{quoted(name)} = {key_parameter(table, position)}" for position, name in enumerate(table.key))
    found = await warehouse.fetch(
        f"SELECT ARRAY[{values}] AS values, {RUN}, {BATCH_ID}, {LOADED_AT}, {DELETED_AT} "
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
                run=row[RUN],
                batch_id=row[BATCH_ID],
                loaded_at=row[LOADED_AT],
                deleted_at=row[DELETED_AT],
                current=place == 0 and row[DELETED_AT] is None,
                inferred=row[RUN] == 0 and not isinstance(table, Calendar),
            )
        )
    return tuple(rows)
