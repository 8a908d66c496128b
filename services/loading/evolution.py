"""What of the warehouse's columns is not as the contract says, and the SQL that makes it so. Exact or refused, never silent."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from contracts.column_types import is_same_type
from contracts.tables import Contract, TableKind, WarehouseTable
from services.loading.schema import TECHNICAL_COLUMNS, create_current_view, current_view, relation
from shared.errors import PermanentError
from shared.sql import quoted

_SPELLINGS = {  # what format_type says, and how a contract says it
    "character varying": "varchar",
    "timestamp without time zone": "timestamp(6)",
    "timestamp(6) without time zone": "timestamp(6)",
    "time without time zone": "time",
    "time(6) without time zone": "time",
}
_TYPE = re.compile(r"(?P<name>integer|bigint|varchar|numeric)(?:\((?P<first>\d+)(?:,(?P<second>\d+))?\))?")


@dataclass(frozen=True, slots=True)
class FoundColumn:
    """A column as queries/columns.sql found it; `is_key` if it is in the primary or in a unique key."""

    table: str
    name: str
    type: str
    is_required: bool
    is_key: bool


def adaptations(contract: Contract, found: Iterable[FoundColumn]) -> list[str]:
    """The statements that widen what the contract has widened, and free columns from a NOT NULL that it no longer asks for.

    A view keeps the types it was made with and the columns it shows from changing: that of a widened fact is made anew.
    Raises: PermanentError for a type that can't become the contract's without a loss.
    """
    columns = list(found)
    statements: list[str] = []
    for table in contract.warehouse_tables:
        own = [column for column in columns if column.table == table.name]
        widened = list(_widenings(contract, table, own))
        if widened and table.kind is TableKind.FACT:
            widened = [f"DROP VIEW {current_view(contract, table)}", *widened, create_current_view(contract, table)]
        statements += [*widened, *_freed(contract, table, own)]
    return statements


def _widenings(contract: Contract, table: WarehouseTable, found: list[FoundColumn]) -> Iterator[str]:
    for column in found:
        wanted = table.star_types.get(column.name)
        actual = _spelled(column.type)
        if wanted is None or is_same_type(actual, wanted.sql) or is_widening(wanted.sql, actual):
            continue  # a wider one, which a newer build has made while this one goes on, holds every value, too
        if not is_widening(actual, wanted.sql):
            raise PermanentError(
                f"column '{column.name}' of the warehouse's '{table.name}' is {actual} and should be {wanted.sql}, which may "
                f"not hold every value; alter the column or correct contract '{contract.name}', then replay the dead letters"
            )
        yield f"ALTER TABLE {relation(contract, table)} ALTER COLUMN {quoted(column.name)} TYPE {wanted.sql}"


def _freed(contract: Contract, table: WarehouseTable, found: list[FoundColumn]) -> Iterator[str]:
    """A column that the contract has dropped, or lets be NULL, would refuse every new row."""
    required = {column.name for column in table.columns if not column.nullable}
    kept = {*required, *TECHNICAL_COLUMNS, table.surrogate}
    for column in found:
        if column.is_required and not column.is_key and column.name not in kept:
            yield f"ALTER TABLE {relation(contract, table)} ALTER COLUMN {quoted(column.name)} DROP NOT NULL"


def is_widening(actual: str, wanted: str) -> bool:
    """Whether every value of the type `actual` is the same value in `wanted`; both as a contract spells them."""
    old, new = _TYPE.fullmatch(actual), _TYPE.fullmatch(wanted)
    if old is None or new is None:
        return False
    match (old["name"], new["name"]):
        case ("integer", "bigint"):
            return True
        case ("varchar", "varchar"):
            return new["first"] is None or (old["first"] is not None and int(new["first"]) >= int(old["first"]))
        case ("numeric", "numeric") if new["first"] is None:
            return True
        case ("numeric", "numeric") if old["second"] and new["second"]:
            scale, wanted_scale = int(old["second"]), int(new["second"])
            return wanted_scale >= scale and int(new["first"]) - wanted_scale >= int(old["first"]) - scale
        case _:
            return False


def _spelled(type_name: str) -> str:
    """`format_type`'s name of a type as a contract spells it."""
    return _SPELLINGS.get(type_name, type_name.replace("character varying(", "varchar("))
