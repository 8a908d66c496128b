"""What the application's users do: one errand is one transaction, written as the statements that reach the database.

`now()` is the start of the transaction, so a long one leaves a `last_updated` that is older than its commit: what makes
`last_updated > watermark` lose rows.

In a statement, `:day_14` is a day at most 14 days ahead, `:staff` and the like the id of a row of that table, and any other
`:name` a value that `Clerk` draws.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any

import asyncpg

from shared.sql import quoted

# The ends of what the columns hold; the product of each pair still fits into a payment's numeric(10,2).
_EXTREME_AMOUNTS = ((1, Decimal("99999999.99")), (2_147_483_647, Decimal("0.01")), (1, Decimal("0.00")))
_EXTREME_DATES = ("2000-02-29", "2099-12-31", "9999-12-31")
_EXTREME_SHARE = 0.01
# What people type into a form, and what breaks a careless CSV, SQL or JSON writer.
_REMARKS = (
    'the "Annexe"',
    "c/o Dwyer, Dwyer, and Dwyer",
    "ring twice\nthen wait",
    "back\\slash \\N",
    "O'Connor's yard",
    "tab\tstop",
    "naïve café 🚚",
    "NULL",
)
_PLACEHOLDER = re.compile(r"(?<!:):(\w+)")
_RECENT = 0.2  # the exponent that makes young rows likelier: half of the picks are in the youngest eighth
_PICK = (
    "(SELECT {key} FROM {table} WHERE {key} > floor(${place}::float8 * (SELECT max({key}) FROM {table}))::int"
    " ORDER BY {key} LIMIT 1)"
)


def _order_statement(table: str, columns: str, values: str, kind: str, payment_type_id: int) -> str:
    """Insert an order, its transaction and its payment. The first two of its own `columns` are quantity and price."""
    quantity, price, _ = columns.split(", ")
    return f"""
WITH placed AS (
    INSERT INTO {table} ({columns}, staff_id, counterparty_id, currency_id, agreed_delivery_location_id, agreed_delivery_date,
                         agreed_payment_date, last_updated)
    VALUES ({values}, :staff, :counterparty, :currency, :address, :day_14, :day_21, now())
    RETURNING *
), booked AS (
    INSERT INTO "transaction" (transaction_type, {table}_id, last_updated) SELECT '{kind}', {table}_id, now() FROM placed
    RETURNING transaction_id
)
INSERT INTO payment (transaction_id, counterparty_id, payment_amount, currency_id, payment_type_id, paid, payment_date,
                     company_ac_number, counterparty_ac_number, last_updated)
SELECT transaction_id, counterparty_id, {quantity} * {price}, currency_id, {payment_type_id}, false, agreed_payment_date,
       :our_account::int, :their_account::int, now()
FROM placed, booked
"""


def _amendments(table: str, quantity: str, price: str) -> tuple[str, str]:
    """Change the dates of an order; or its quantity and price, and with them a payment that is still open."""
    dates = f"""
UPDATE {table} SET agreed_delivery_date = :day_14, agreed_payment_date = :day_21, last_updated = now()
WHERE {table}_id = :{table}
"""
    amount = f"""
WITH amended AS (
    UPDATE {table} SET {quantity} = :units, {price} = :price, last_updated = now() WHERE {table}_id = :{table} RETURNING *
)
UPDATE payment SET payment_amount = {quantity} * {price}, last_updated = now()
FROM amended JOIN "transaction" USING ({table}_id)
WHERE payment.transaction_id = "transaction".transaction_id AND NOT paid
"""
    return dates, amount


_SELL = _order_statement("sales_order", "units_sold, unit_price, design_id", ":units, :price, :design", "SALE", 1)
_BUY = _order_statement("purchase_order", "item_quantity, item_unit_price, item_code", ":units, :price, :code", "PURCHASE", 3)
_SETTLE = """
UPDATE payment SET paid = true, payment_date = :day_0, last_updated = now()
WHERE payment_id = (SELECT payment_id FROM payment WHERE payment_id >= :payment AND NOT paid ORDER BY payment_id LIMIT 1)
"""
_MOVE = "UPDATE staff SET department_id = :department, last_updated = now() WHERE staff_id = :staff"
_RENAME_DEPARTMENT = """
UPDATE department SET department_name = :name, location = :district, last_updated = now() WHERE department_id = :department
"""
_CORRECT_ADDRESS = """
UPDATE address SET address_line_1 = :name, address_line_2 = :remark, district = :district, last_updated = now()
WHERE address_id = :address
"""
_CORRECT_COUNTERPARTY = """
UPDATE counterparty SET counterparty_legal_name = :name, delivery_contact = :remark, last_updated = now()
WHERE counterparty_id = :counterparty
"""
_ADD_DESIGN = """
INSERT INTO design (design_name, file_location, file_name, last_updated) VALUES (:name, '/opt/designs', :code, now())
"""
_CANCEL_PAYMENT = """
DELETE FROM payment USING "transaction"
WHERE "transaction".sales_order_id = :order AND payment.transaction_id = "transaction".transaction_id
"""
_CANCEL_TRANSACTION = 'DELETE FROM "transaction" WHERE sales_order_id = :order'
_CANCEL_ORDER = "DELETE FROM sales_order WHERE sales_order_id = :order"
_DROP_DESIGN = """
DELETE FROM design WHERE design_id = :design
AND NOT EXISTS (SELECT FROM sales_order WHERE sales_order.design_id = design.design_id)
"""
_VOID = "DELETE FROM payment WHERE payment_id = :payment AND NOT paid RETURNING to_jsonb(payment)"
_ISSUE_AGAIN = """
INSERT INTO payment
SELECT again.*
FROM jsonb_populate_record(NULL::payment, :voided::jsonb || jsonb_build_object('last_updated', now())) AS again
JOIN "transaction" USING (transaction_id)
ON CONFLICT DO NOTHING
"""


class ChangedMindError(Exception):
    """The user cancelled. Recovery: roll back and do something else."""


def _one_of(*statements: str) -> Callable[[Clerk], Awaitable[None]]:
    """An errand that is a single statement, one of these."""

    async def errand(clerk: Clerk) -> None:
        await clerk.run(clerk.draw.choice(statements))

    return errand


class Clerk:
    """Runs errands on one connection, each inside a transaction that the caller has opened.

    `pause` waits that many seconds, or less when the writing is to stop.
    """

    def __init__(self, connection: asyncpg.Connection, draw: Random, pause: Callable[[float], Awaitable[None]]) -> None:
        self.connection = connection
        self.draw = draw
        self._pause = pause
        self._voided: list[str] = []

    sell = _one_of(_SELL)
    buy = _one_of(_BUY)
    amend_sale = _one_of(*_amendments("sales_order", "units_sold", "unit_price"))
    amend_purchase = _one_of(*_amendments("purchase_order", "item_quantity", "item_unit_price"))
    settle_payment = _one_of(_SETTLE)
    move_staff = _one_of(_MOVE)
    correct = _one_of(_RENAME_DEPARTMENT, _CORRECT_ADDRESS, _CORRECT_COUNTERPARTY)
    add_design = _one_of(_ADD_DESIGN)
    drop_design = _one_of(_DROP_DESIGN)

    async def work_slowly(self) -> None:
        """A long transaction: others begin and commit while it is open; all its rows carry the time of its start."""
        await self.sell()
        await self.correct()
        await self._pause(self.draw.uniform(2, 5))
        await self.amend_sale()
        await self.buy()

    async def change_mind(self) -> None:
        """A transaction that is rolled back. Raises: ChangedMindError, always."""
        await self.buy()
        await self.amend_sale()
        raise ChangedMindError

    async def undo_a_part(self) -> None:
        """One savepoint rolled back, another one kept: the kept rows carry the id of a sub-transaction."""
        await self.sell()
        with suppress(ChangedMindError):
            async with self.connection.transaction():
                await self.add_design()
                await self.change_mind()
        async with self.connection.transaction():
            await self.amend_purchase()
            await self.buy()

    async def cancel_sale(self) -> None:
        """Delete a sales order, its payment and, in seven of ten cases, its transaction; else that stays, without an order."""
        order = await self.run("SELECT :sales_order")
        await self.run(_CANCEL_PAYMENT, order=order)
        if self.draw.random() < 0.7:  # noqa: PLR2004
            await self.run(_CANCEL_TRANSACTION, order=order)
        await self.run(_CANCEL_ORDER, order=order)

    async def void_payment(self) -> None:
        """Delete an open payment, until it is issued again."""
        if (payment := await self.run(_VOID)) is not None:
            self._voided.append(payment)

    async def issue_again(self) -> None:
        """Insert a voided payment under its old key, unless its transaction was deleted meanwhile."""
        if self._voided:
            await self.run(_ISSUE_AGAIN, voided=self._voided.pop(0))

    async def run(self, statement: str, **given: Any) -> Any:
        """Run a statement with its placeholders filled in; return the first value of its first row, if it has any."""
        values = self._draw_values() | given
        arguments: list[Any] = []

        def fill_in(placeholder: re.Match[str]) -> str:
            name, place = placeholder[1], len(arguments) + 1
            if name in values:
                arguments.append(values[name])
            elif name.startswith("day_"):
                arguments.append(self._draw_date(int(name.removeprefix("day_"))))
            else:
                arguments.append(self.draw.random() ** _RECENT)
                return _PICK.format(table=quoted(name), key=quoted(f"{name}_id"), place=place)
            return f"${place}"

        return await self.connection.fetchval(_PLACEHOLDER.sub(fill_in, statement), *arguments)

    def _draw_values(self) -> dict[str, Any]:
        """Units, the price of one, and texts: absent, empty, or full of what needs quoting."""
        draw, remark = self.draw, self.draw.choice(_REMARKS)
        units, price = draw.randint(1, 50_000), Decimal(draw.randint(1, 1_000)).scaleb(-2)
        if draw.random() < _EXTREME_SHARE:
            units, price = draw.choice(_EXTREME_AMOUNTS)
        return {
            "units": units,
            "price": price,
            "our_account": draw.randrange(10_000_000, 99_999_999),
            "their_account": draw.randrange(10_000_000, 99_999_999),
            "code": f"{draw.choice('ABCDEFGHJK')}{draw.randrange(1000):03d}-OAK",
            "name": f"Iqbal «neu» {draw.randint(1, 999)}, {remark}",
            "district": draw.choice((None, "", "Kent", "Neukölln", "Ørestad")),
            "remark": draw.choice((None, "", remark)),
        }

    def _draw_date(self, most_days: int) -> str:
        """A day from today on, at most that many days ahead; rarely one at the calendar's limits."""
        if self.draw.random() < _EXTREME_SHARE:
            return self.draw.choice(_EXTREME_DATES)
        return (datetime.now(UTC) + timedelta(days=self.draw.randint(0, most_days))).date().isoformat()
