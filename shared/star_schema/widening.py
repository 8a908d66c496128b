"""Which names and types of columns the contract has changed, and whether a wider type holds every value. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from contracts.column_types import is_same_type
from contracts.tables import StoredTable
from shared.star_schema.star import FoundStar

_SPELLINGS = {  # what format_type says, and how a contract says it
    "character varying": "varchar",
    "timestamp without time zone": "timestamp(6)",
    "timestamp(6) without time zone": "timestamp(6)",
    "time without time zone": "time",
    "time(6) without time zone": "time",
}
_TYPE = re.compile(r"(?P<name>integer|bigint|varchar|numeric)(?:\((?P<first>\d+)(?:,(?P<second>\d+))?\))?")


def renames(table: StoredTable, star: FoundStar) -> dict[str, str]:
    """The columns that the contract renames, and that still have their old names, with the new ones."""
    names = {column.name for column in star.columns[table.name]}
    return {old: new for new, old in table.renamed if old in names and new not in names}


def widenings(table: StoredTable, star: FoundStar) -> list[tuple[str, str]]:
    """The columns whose type the contract has widened, as they are called now, with the new type."""
    return [(name, wanted) for name, actual, wanted in retyped(table, star) if is_widening(actual, wanted)]


def retyped(table: StoredTable, star: FoundStar) -> Iterator[tuple[str, str, str]]:
    """The columns of another type than the contract's, with both types."""
    renamed = renames(table, star)
    for column in star.columns[table.name]:
        wanted = table.star_types.get(renamed.get(column.name, column.name))
        actual = _SPELLINGS.get(column.type, column.type.replace("character varying(", "varchar("))
        if wanted is None or is_same_type(actual, wanted.sql) or is_widening(wanted.sql, actual):
            continue  # a wider type, made by a newer build while this one still runs, also holds every value
        yield column.name, actual, wanted.sql


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
