"""Fills an empty totesys with two believable years, at any scale: the same seed gives the same rows, to the millisecond.

The small tables keep their real sizes. The large ones grow with the number of sales orders, in the proportions of the real
database, and are made column by column with numpy.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from importlib.resources import files
from random import Random
from typing import Any

import asyncpg
import numpy as np

from infra.local.totesys import vocabulary
from shared.sql import quoted

BASE_DATE = datetime(2026, 11, 1)  # noqa: DTZ001 - the source's timestamps are UTC without a zone
HISTORY = timedelta(days=730)

ADDRESSES, COUNTERPARTIES, DESIGNS, STAFF = 30, 20, 473, 20
# What the real database held after two years.
REAL_SALES_ORDERS, REAL_PURCHASE_ORDERS = 11_187, 4_649
REFUND_SHARE, AMENDED_SHARE = 0.03, 0.3
WORKDAY_STARTS, WORKDAY = np.timedelta64(8, "h"), timedelta(hours=10)

_TYPE_IDS = {name: position for position, name in enumerate(vocabulary.PAYMENT_TYPES, start=1)}

Columns = dict[str, Sequence[Any]]
Times = np.ndarray[Any, np.dtype[np.datetime64]]
Durations = np.ndarray[Any, np.dtype[np.timedelta64]]
Integers = np.ndarray[Any, np.dtype[np.int64]]

# Adding a foreign key checks all rows in one join; keeping it during a COPY looks each row up, which takes five times as long.
_FOREIGN_KEYS = """
SELECT format('ALTER TABLE %s DROP CONSTRAINT %I', conrelid::regclass, conname) AS remove,
       format('ALTER TABLE %s ADD CONSTRAINT %I %s', conrelid::regclass, conname, pg_get_constraintdef(oid)) AS restore
FROM pg_constraint
WHERE contype = 'f' AND connamespace = current_schema()::regnamespace
ORDER BY conrelid::regclass::text, conname
"""


class NotEmptyError(Exception):
    """The database holds rows already. Recovery: create the schema in an empty database and fill that."""


@dataclass(frozen=True)
class _Orders:
    """What sales and purchase orders have in common. Amounts are in hundredths, times in ms and ascending."""

    created: Times
    updated: Times
    payment_days: Times
    amounts: Integers
    counterparty_ids: Integers
    currency_ids: Integers


async def create(connection: asyncpg.Connection) -> None:
    """Create the tables of totesys in the connection's current schema.

    Raises: asyncpg.DuplicateObjectError or asyncpg.DuplicateTableError where something of that name is already.
    """
    statements = files("infra.local.totesys").joinpath("schema.sql").read_text(encoding="utf-8")
    async with connection.transaction():
        await connection.execute(statements)


async def fill(connection: asyncpg.Connection, *, orders: int, seed: int, until: datetime = BASE_DATE) -> dict[str, int]:
    """Fill the empty tables with `orders` sales orders and what belongs to them, in one transaction.

    `until` is the end of the two years, UTC without a zone. Returns: the rows of each table. Raises: NotEmptyError.
    """
    if await connection.fetchval("SELECT EXISTS (SELECT FROM currency)"):
        raise NotEmptyError("the database is filled already; create totesys in an empty database and fill that")
    tables = _small_tables(vocabulary.seeded(seed), until - HISTORY)
    tables |= _large_tables(np.random.default_rng(seed), orders, until)
    async with connection.transaction(), _without_foreign_keys(connection):
        for table, columns in tables.items():
            await connection.copy_records_to_table(table, columns=list(columns), records=zip(*columns.values(), strict=True))
    for table in tables:
        await _advance_sequence(connection, table)
    await connection.execute(f"ANALYZE {', '.join(quoted(table) for table in tables)}")
    return {table: len(columns["created_at"]) for table, columns in tables.items()}


@asynccontextmanager
async def _without_foreign_keys(connection: asyncpg.Connection) -> AsyncIterator[None]:
    """Inside, no foreign key is checked; at the end all are there again, and valid."""
    constraints = await connection.fetch(_FOREIGN_KEYS)
    for constraint in constraints:
        await connection.execute(constraint["remove"])
    yield
    for constraint in constraints:
        await connection.execute(constraint["restore"])


async def _advance_sequence(connection: asyncpg.Connection, table: str) -> None:
    """The next row that the application inserts comes after the last one here."""
    statement = f"SELECT setval(pg_get_serial_sequence($1, $2), coalesce(max({table}_id), 0) + 1, false) FROM {quoted(table)}"
    await connection.execute(statement, quoted(table), f"{table}_id")


# --- the small tables ----------------------------------------------------------------------------------------------


def _small_tables(draw: Random, opened: datetime) -> dict[str, Columns]:
    """The tables that do not grow with the business, present since it opened."""

    def table(name: str, *columns: str, rows: Sequence[tuple[Any, ...]]) -> dict[str, Columns]:
        created = [opened + timedelta(milliseconds=draw.randrange(7_200_000)) for _ in rows]
        corrected = [time + draw.choice((0, 0, 0, 1)) * timedelta(milliseconds=draw.randrange(10**10)) for time in created]
        values = dict(zip(columns, map(list, zip(*rows, strict=True)), strict=True))
        return {name: {f"{name}_id": range(1, len(rows) + 1), **values, "created_at": created, "last_updated": corrected}}

    return {
        **table("currency", "currency_code", rows=[(code,) for code in vocabulary.CURRENCIES]),
        **table("payment_type", "payment_type_name", rows=[(name,) for name in vocabulary.PAYMENT_TYPES]),
        **table("department", "department_name", "location", "manager", rows=vocabulary.DEPARTMENTS),
        **table("design", "design_name", "file_location", "file_name", rows=_rows(DESIGNS, draw, _design)),
        **table(
            "address",
            *("address_line_1", "address_line_2", "district", "city", "country", "postal_code", "phone"),
            rows=_rows(ADDRESSES, draw, _address),
        ),
        **table("staff", "first_name", "last_name", "department_id", "email_address", rows=_rows(STAFF, draw, _staff)),
        **table(
            "counterparty",
            *("counterparty_legal_name", "legal_address_id", "commercial_contact", "delivery_contact"),
            rows=_rows(COUNTERPARTIES, draw, _counterparty),
        ),
    }


def _rows(count: int, draw: Random, row: Callable[[Random, int], tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return [row(draw, number) for number in range(1, count + 1)]


def _design(draw: Random, number: int) -> tuple[Any, ...]:
    name = vocabulary.product_name(draw)
    return name, vocabulary.folder(draw), vocabulary.file_name(name, number)


def _address(draw: Random, number: int) -> tuple[Any, ...]:
    """The first three show each kind of an optional text: absent, empty, given."""
    second_line = (None, "", "Dock B")[number - 1] if number <= 3 else vocabulary.second_line(draw)  # noqa: PLR2004
    optional = (second_line, vocabulary.district(draw))
    return vocabulary.street_line(draw), *optional, *vocabulary.place(draw), vocabulary.phone(draw)


def _staff(draw: Random, number: int) -> tuple[Any, ...]:
    first, last = vocabulary.person(draw)
    department_id = 1 + number % len(vocabulary.DEPARTMENTS)
    return first, last, department_id, f"{first}.{last}{number}@totesys.example".lower()


def _counterparty(draw: Random, number: int) -> tuple[Any, ...]:
    """The first three show each kind of an optional text: absent, empty, given."""
    contact = (None, "", "Ólafur Þórsson")[number - 1] if number <= 3 else vocabulary.contact(draw)  # noqa: PLR2004
    return vocabulary.company_name(draw), draw.randint(1, ADDRESSES), contact, vocabulary.contact(draw)


# --- the large tables ----------------------------------------------------------------------------------------------


def _large_tables(draw: np.random.Generator, orders: int, until: datetime) -> dict[str, Columns]:
    sales, sales_columns = _sales_orders(draw, orders, until)
    purchases, purchase_columns = _purchase_orders(draw, round(orders * REAL_PURCHASE_ORDERS / REAL_SALES_ORDERS), until)
    return {
        "sales_order": sales_columns,
        "purchase_order": purchase_columns,
        **_transactions_and_payments(draw, sales, purchases, until),
    }


def _sales_orders(draw: np.random.Generator, count: int, until: datetime) -> tuple[_Orders, Columns]:
    units = draw.integers(1_000, 100_000, count)
    prices = draw.integers(200, 400, count)
    orders, shared = _orders(draw, count, until, amounts=units * prices)
    columns = {
        "sales_order_id": range(1, count + 1),
        "design_id": draw.integers(1, DESIGNS, count, endpoint=True).tolist(),
        "units_sold": units.tolist(),
        "unit_price": _money(prices),
    }
    return orders, columns | shared


def _purchase_orders(draw: np.random.Generator, count: int, until: datetime) -> tuple[_Orders, Columns]:
    quantities = draw.integers(1, 1_000, count, endpoint=True)
    prices = draw.integers(100, 100_000, count)
    orders, shared = _orders(draw, count, until, amounts=quantities * prices)
    codes = vocabulary.seeded(int(draw.integers(2**32)))
    columns = {
        "purchase_order_id": range(1, count + 1),
        "item_code": [vocabulary.item_code(codes) for _ in range(count)],
        "item_quantity": quantities.tolist(),
        "item_unit_price": _money(prices),
    }
    return orders, columns | shared


def _orders(draw: np.random.Generator, count: int, until: datetime, amounts: Integers) -> tuple[_Orders, Columns]:
    """The columns that both kinds of order have, as numbers and as they go into the table."""
    created = _office_hours(draw, count, until)
    later = draw.integers(0, 30 * 86_400_000, count) * (draw.random(count) < AMENDED_SHARE)
    orders = _Orders(
        created=created,
        updated=np.minimum(created + later, np.datetime64(until - timedelta(milliseconds=1), "ms")),
        payment_days=_days_after(draw, created, most=21),
        amounts=amounts,
        counterparty_ids=draw.integers(1, COUNTERPARTIES, count, endpoint=True),
        currency_ids=draw.choice(np.arange(1, 4), count, p=(0.5, 0.3, 0.2)),
    )
    return orders, {
        "staff_id": draw.integers(1, STAFF, count, endpoint=True).tolist(),
        "counterparty_id": orders.counterparty_ids.tolist(),
        "currency_id": orders.currency_ids.tolist(),
        "agreed_delivery_date": _texts(_days_after(draw, created, most=14)),
        "agreed_payment_date": _texts(orders.payment_days),
        "agreed_delivery_location_id": draw.integers(1, ADDRESSES, count, endpoint=True).tolist(),
        "created_at": orders.created.tolist(),
        "last_updated": orders.updated.tolist(),
    }


def _transactions_and_payments(
    draw: np.random.Generator, sales: _Orders, purchases: _Orders, until: datetime
) -> dict[str, Columns]:
    """One transaction and one payment for each order, numbered as the orders of both kinds came in."""
    created = np.concatenate((sales.created, purchases.created))
    order = np.argsort(created, kind="stable")
    count, is_sale = len(order), order < len(sales.created)
    days = np.concatenate((sales.payment_days, purchases.payment_days))[order]
    paid = days < np.datetime64(until, "D")
    settled = np.where(paid, days + WORKDAY_STARTS + _workday_times(draw, count), created[order])
    refund = (draw.random(count) < REFUND_SHARE).astype(np.int64)
    identity = {"transaction_id": range(1, count + 1)}
    numbers = [int(place) + 1 for place in np.where(is_sale, order, order - len(sales.created))]
    return {
        "transaction": identity
        | {
            "transaction_type": ["SALE" if sale else "PURCHASE" for sale in is_sale],
            "sales_order_id": [number if sale else None for number, sale in zip(numbers, is_sale, strict=True)],
            "purchase_order_id": [None if sale else number for number, sale in zip(numbers, is_sale, strict=True)],
            "created_at": created[order].tolist(),
            "last_updated": created[order].tolist(),
        },
        "payment": identity
        | {
            "payment_id": range(1, count + 1),
            "counterparty_id": np.concatenate((sales.counterparty_ids, purchases.counterparty_ids))[order].tolist(),
            "payment_amount": _money(np.concatenate((sales.amounts, purchases.amounts))[order]),
            "currency_id": np.concatenate((sales.currency_ids, purchases.currency_ids))[order].tolist(),
            "payment_type_id": (np.where(is_sale, _TYPE_IDS["SALES_RECEIPT"], _TYPE_IDS["PURCHASE_PAYMENT"]) + refund).tolist(),
            "paid": paid.tolist(),
            "payment_date": _texts(days),
            "company_ac_number": draw.integers(10_000_000, 99_999_999, count).tolist(),
            "counterparty_ac_number": draw.integers(10_000_000, 99_999_999, count).tolist(),
            "created_at": created[order].tolist(),
            "last_updated": settled.tolist(),
        },
    }


def _office_hours(draw: np.random.Generator, count: int, until: datetime) -> Times:
    """Ascending moments of the working days' ten hours, over the two years."""
    days = np.datetime64(until - HISTORY, "D") + draw.integers(0, HISTORY.days, count)
    return np.sort(days + WORKDAY_STARTS + _workday_times(draw, count))


def _workday_times(draw: np.random.Generator, count: int) -> Durations:
    """How long after the start of a working day."""
    return draw.integers(0, WORKDAY // timedelta(milliseconds=1), count).astype("m8[ms]")


def _days_after(draw: np.random.Generator, times: Times, most: int) -> Times:
    """For each time a day that follows it, at most `most` days later."""
    days: Times = times.astype("M8[D]") + draw.integers(1, most, len(times), endpoint=True).astype("m8[D]")
    return days


def _money(hundredths: Integers) -> list[Decimal]:
    return [Decimal(amount).scaleb(-2) for amount in hundredths.tolist()]


def _texts(days: Times) -> list[str]:
    """Dates as the application spells them: YYYY-MM-DD."""
    spelled: list[str] = np.datetime_as_string(days, unit="D").tolist()
    return spelled
