"""What a table or a column probably is: a guess by types, keys, row counts and names, which a person corrects. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from contracts.column_types import Kind
from services.operator.contract.catalog import CatalogColumn, CatalogTable, ForeignKey
from shared.sql import quoted

RATIO = 10  # a table with that many times fewer rows than another is small in comparison
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\d_A-Z]+|\d+")
_SECRETS = re.compile(  # words of names
    r"\b(?:password|passwd|passcode|passphrase|pwd|secret|token|hash|salt|digest|iban|bic|ssn|cvv|cvc|pin|otp|apikey|credentials?|"
    r"encrypted|api key|private key|access key|credit card|card number|account number|tax id|passport)\b"
)
_NAMES = frozenset(
    (
        "name",
        "title",
        "label",
        "email",
        "first name",
        "last name",
        "full name",
        "company name",
        "username",
        "firstname",
        "lastname",
    )
)
_MEASURES = re.compile(r"numeric.*|double precision|real|money|interval")
_CHANGED = re.compile(r"updat|modif|chang")
_MADE = re.compile(r"creat|insert|added|load")
_DELETED = re.compile(r"(?:is )?(?:deleted|removed|archived|discarded|trashed)(?: at| on| date| time| ts)?")
_PLAIN = re.compile(r"[a-z_][a-z0-9_]*")  # a name that means itself in SQL without quotes
# Large, or of no use in a column of a star.
_HEAVY = re.compile(
    r"bytea|jsonb?|xml|tsvector|tsquery|.*\b(?:geometry|geography|raster|box[23]d)|point|line|lseg|box|path|polygon|circle"
)

# The tables in which tools for migrations keep what they have done.
_MIGRATIONS = re.compile(
    r"(?:.* )?(?:schema )?migrations?|alembic version|flyway schema history|databasechangelog.*|ar internal metadata"
)


def words(name: str) -> str:
    """A name's words, in lower case with blanks between them, however it joins them."""
    return " ".join(_WORD.findall(name)).lower()


def is_secret(name: str) -> bool:
    """Whether a column called so may hold what should stay in the source."""
    return _SECRETS.search(words(name)) is not None


def filter_of_deleted(table: CatalogTable) -> str | None:
    """The filter that leaves out rows which the application marks as deleted; None if no column's name says that it does."""
    for column in table.columns:
        name = column.name if _PLAIN.fullmatch(column.name) else quoted(column.name)
        if column.is_readable and _DELETED.fullmatch(words(column.name)):
            if column.type.is_moment and column.nullable:
                return f"{name} IS NULL"
            if column.type.kind is Kind.BOOLEAN:
                return f"COALESCE(NOT {name}, true)" if column.nullable else f"NOT {name}"
    return None


def is_of_migrations(name: str) -> bool:
    """Whether a table called so is a tool's, which keeps in it what has been migrated."""
    return _MIGRATIONS.fullmatch(words(name)) is not None


def is_heavy(column: CatalogColumn) -> bool:
    """Whether the values are documents, pictures, shapes or the like, or arrays of them."""
    return _HEAVY.fullmatch(column.spelled.removesuffix("[]")) is not None


def is_change_time(column: CatalogColumn) -> bool:
    """Whether it is the time of the row's last change, by its name."""
    return is_timestamp(column) and _CHANGED.search(column.name.lower()) is not None


def creation_time(table: CatalogTable, like: CatalogColumn) -> CatalogColumn | None:
    """The NOT NULL time of a row's creation, of the type of another column: what stands for a change that never was."""
    found = (one for one in table.columns if one.type == like.type and not one.nullable and one.is_readable)
    return next((one for one in found if _MADE.search(one.name.lower())), None)


def is_timestamp(column: CatalogColumn) -> bool:
    """Whether it has a date and a time of day."""
    return column.type.kind in {Kind.TIMESTAMP, Kind.TIMESTAMPTZ}


def naming_columns(table: CatalogTable) -> list[CatalogColumn]:
    """The columns that people call its rows by."""
    names = _NAMES | {f"{words(table.name)} name", f"{words(table.name).removesuffix('s')} name"}
    return [column for column in table.columns if column.type.is_text and words(column.name) in names]


def facts_among(tables: Mapping[str, CatalogTable]) -> set[str]:
    """The tables that look like facts: events, transactions, measurements and many-to-many relations.

    A fact refers to others, and only facts refer to it; so the order is a fact as its lines are, and the customer is not.
    A table that has no name, such as the transaction between an order and its payment, may come between two facts.
    """
    referring = {name: set[str]() for name in tables}
    for table in tables.values():
        for link in _links(table):
            referring.get(link.table, set()).add(table.name)
    largest = max((table.rows for table in tables.values()), default=0)
    facts = {name for name, table in tables.items() if not referring[name] and _is_event(table, largest)}
    between = {
        name
        for name, table in tables.items()
        if referring[name] and referring[name] <= facts and _links(table) and not naming_columns(table)
    }
    while more := {
        name
        for name, table in tables.items()
        if name not in facts
        and referring[name]
        and referring[name] <= facts | between
        and _is_header(table, max(tables[other].rows for other in referring[name]))
    }:
        facts |= more
    return facts


def _is_event(table: CatalogTable, largest: int) -> bool:
    """Whether a table to which no other refers is a fact."""
    links, times = _links(table), _times(table)
    happens = [column for column in times if not _MADE.search(column.name.lower())]
    if not links:
        return bool(happens and _measures(table)) and not naming_columns(table) and table.rows * RATIO >= largest
    return _is_bridge(table) or bool(happens) or bool((times or _measures(table)) and not naming_columns(table))


def _is_header(table: CatalogTable, rows: int) -> bool:
    """Whether a table is a fact although facts refer to it, the largest with that many rows: an order with lines."""
    times = _times(table)
    happens = any(not _MADE.search(column.name.lower()) for column in times)
    is_dated = happens or bool(times and _measures(table))
    return bool(_links(table)) and is_dated and not naming_columns(table) and table.rows * RATIO >= rows


def _is_bridge(table: CatalogTable) -> bool:
    """Whether it only says which rows of two or more tables belong together."""
    linked = {name for link in table.foreign_keys for name in link.columns}
    rest = [column for column in table.columns if column.name not in linked.union(table.key)]
    return len(_links(table)) > 1 and all(is_timestamp(column) for column in rest)


def _links(table: CatalogTable) -> list[ForeignKey]:
    return [link for link in table.foreign_keys if link.table != table.name]


def _times(table: CatalogTable) -> list[CatalogColumn]:
    return [column for column in table.columns if column.type.is_moment and not is_change_time(column)]


def _measures(table: CatalogTable) -> list[CatalogColumn]:
    """The columns that hold quantities."""
    taken = {*table.key, *(name for link in table.foreign_keys for name in link.columns)}
    return [
        column
        for column in table.columns
        if column.name not in taken
        and "id" not in words(column.name).split()
        and (column.type.is_whole_number or column.type.kind is Kind.NUMERIC or _MEASURES.fullmatch(column.spelled))
    ]
