"""What the application's users do: one errand is one transaction, written as the statements that reach the database.

`now()` is the start of the transaction, so a long one leaves a `last_updated` that is older than its commit: what makes
`last_updated > watermark` lose rows.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
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
_RECENT = 0.2  # the exponent that makes young rows likelier: half of the picks are in the youngest eighth
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

_SETTLE = """
UPDATE payment SET paid = true, payment_date = $2, last_updated = now()
WHERE payment_id = (SELECT payment_id FROM payment WHERE payment_id >= $1 AND NOT paid ORDER BY payment_id LIMIT 1)
"""
_CHARGE_AGAIN = """
UPDATE payment SET payment_amount = $2, last_updated = now()
FROM "transaction" WHERE "transaction".{order}_id = $1 AND payment.transaction_id = "transaction".transaction_id AND NOT paid
"""
_VOID = "DELETE FROM payment WHERE payment_id = $1 AND NOT paid RETURNING to_jsonb(payment)"
_ISSUE_AGAIN = """
INSERT INTO payment
SELECT again.* FROM jsonb_populate_record(NULL::payment, $1::jsonb || jsonb_build_object('last_updated', now())) AS again
JOIN "transaction" USING (transaction_id)
ON CONFLICT DO NOTHING
"""
_CANCEL_PAYMENT = """
DELETE FROM payment USING "transaction"
WHERE "transaction".sales_order_id = $1 AND payment.transaction_id = "transaction".transaction_id
"""
_DROP_DESIGN = """
DELETE FROM design WHERE design_id = $1 AND NOT EXISTS (SELECT FROM sales_order WHERE sales_order.design_id = design.design_id)
"""


class ChangedMindError(Exception):
    """The user cancelled. Recovery: roll back and do something else."""


class Clerk:
    """Runs errands on one connection, each inside a transaction that the caller has opened.

    `pause` waits so many seconds, or less when the writing is to stop.
    """

    def __init__(self, connection: asyncpg.Connection, draw: Random, pause: Callable[[float], Awaitable[None]]) -> None:
        self.connection = connection
        self._draw = draw
        self._pause = pause
        self._voided: list[str] = []

    # --- everyday errands ----------------------------------------------------------------------------------------

    async def sell(self) -> None:
        """A sales order with its transaction and its payment."""
        units, price = self._amount(most_units=100_000, most_hundredths=400)
        order = {"units_sold": units, "unit_price": price, "design_id": await self._pick("design"), **await self._order()}
        await self._charge("SALE", 1, order, units * price, sales_order_id=await self._insert("sales_order", order))

    async def buy(self) -> None:
        """A purchase order with its transaction and its payment."""
        units, price = self._amount(most_units=1_000, most_hundredths=100_000)
        code = f"{self._draw.choice('ABCDEFGHJK')}{self._draw.randrange(1000):03d}-OAK"
        order = {"item_code": code, "item_quantity": units, "item_unit_price": price, **await self._order()}
        await self._charge("PURCHASE", 3, order, units * price, purchase_order_id=await self._insert("purchase_order", order))

    async def amend_sale(self) -> None:
        """Other units and price, or other dates, of a sales order."""
        await self._amend("sales_order", "units_sold", "unit_price")

    async def amend_purchase(self) -> None:
        """Other quantity and price, or other dates, of a purchase order."""
        await self._amend("purchase_order", "item_quantity", "item_unit_price")

    async def settle_payment(self) -> None:
        """An open payment is paid."""
        await self.connection.execute(_SETTLE, await self._pick("payment"), self._date(0))

    async def move_staff(self) -> None:
        """A member of staff changes department."""
        await self._update("staff", department_id=await self._pick("department"))

    async def correct(self) -> None:
        """A department, an address or a counterparty gets other texts: absent, empty, or full of what needs quoting."""
        choice, number = self._draw.choice, self._draw.randint(1, 999)
        district, remark = choice((None, "", "Kent", "Neukölln", "Ørestad")), choice(_REMARKS)
        await choice(
            (
                lambda: self._update("department", department_name=f"Sales {number} «neu»", location=district),
                lambda: self._update(
                    "address",
                    address_line_1=f"{number} Mill Lane",
                    address_line_2=choice((None, "", remark)),
                    district=district,
                ),
                lambda: self._update(
                    "counterparty", counterparty_legal_name=f"Iqbal Ltd, {remark}", delivery_contact=choice((None, "", "Bea"))
                ),
            )
        )()

    async def add_design(self) -> None:
        """A new design."""
        number = self._draw.randrange(100_000)
        texts = {"design_name": f"Rustic Oak Lamp {number}", "file_location": "/opt/designs", "file_name": f"{number:05d}.json"}
        await self._insert("design", texts)

    # --- errands that are hard to follow ---------------------------------------------------------------------------

    async def work_slowly(self) -> None:
        """A long transaction: others begin and commit while it is open; all its rows carry the time of its start."""
        await self.sell()
        await self.correct()
        await self._pause(self._draw.uniform(2, 5))
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
        try:
            async with self.connection.transaction():
                await self.add_design()
                await self.change_mind()
        except ChangedMindError:
            pass
        async with self.connection.transaction():
            await self.amend_purchase()
            await self.buy()

    # --- errands that delete rows ------------------------------------------------------------------------------------

    async def cancel_sale(self) -> None:
        """Delete a sales order, its payment and, in seven of ten cases, its transaction; else that stays, without an order."""
        order_id = await self._pick("sales_order")
        await self.connection.execute(_CANCEL_PAYMENT, order_id)
        if self._draw.random() < 0.7:  # noqa: PLR2004
            await self.connection.execute('DELETE FROM "transaction" WHERE sales_order_id = $1', order_id)
        await self.connection.execute("DELETE FROM sales_order WHERE sales_order_id = $1", order_id)

    async def drop_design(self) -> None:
        """Delete a design that was never ordered."""
        await self.connection.execute(_DROP_DESIGN, await self._pick("design"))

    async def void_payment(self) -> None:
        """Delete an open payment, until it is issued again."""
        payment = await self.connection.fetchval(_VOID, await self._pick("payment"))
        self._voided += [payment] if payment is not None else []

    async def issue_again(self) -> None:
        """Insert a voided payment under its old key, unless its transaction was deleted meanwhile."""
        if self._voided:
            await self.connection.execute(_ISSUE_AGAIN, self._voided.pop(0))

    # --- what they are made of -------------------------------------------------------------------------------------

    async def _order(self) -> dict[str, Any]:
        """The columns that both kinds of order have."""
        return {
            "staff_id": await self._pick("staff"),
            "counterparty_id": await self._pick("counterparty"),
            "currency_id": await self._pick("currency"),
            "agreed_delivery_location_id": await self._pick("address"),
            "agreed_delivery_date": self._date(14),
            "agreed_payment_date": self._date(21),
        }

    async def _charge(self, kind: str, payment_type_id: int, order: dict[str, Any], amount: Decimal, **order_id: int) -> None:
        payment = {
            "transaction_id": await self._insert("transaction", {"transaction_type": kind, **order_id}),
            "counterparty_id": order["counterparty_id"],
            "payment_amount": amount,
            "currency_id": order["currency_id"],
            "payment_type_id": payment_type_id,
            "paid": False,
            "payment_date": order["agreed_payment_date"],
            "company_ac_number": self._draw.randrange(10_000_000, 99_999_999),
            "counterparty_ac_number": self._draw.randrange(10_000_000, 99_999_999),
        }
        await self._insert("payment", payment)

    async def _amend(self, table: str, units_column: str, price_column: str) -> None:
        order_id = await self._pick(table)
        if self._draw.random() < 0.5:  # noqa: PLR2004 - a coin
            await self._update(table, order_id, agreed_delivery_date=self._date(14), agreed_payment_date=self._date(21))
            return
        units, price = self._amount(most_units=50_000, most_hundredths=1_000)
        await self._update(table, order_id, **{units_column: units, price_column: price})
        await self.connection.execute(_CHARGE_AGAIN.format(order=table), order_id, units * price)

    def _amount(self, *, most_units: int, most_hundredths: int) -> tuple[int, Decimal]:
        """Units and the price of one."""
        if self._draw.random() < _EXTREME_SHARE:
            return self._draw.choice(_EXTREME_AMOUNTS)
        return self._draw.randint(1, most_units), Decimal(self._draw.randint(1, most_hundredths)).scaleb(-2)

    def _date(self, most_days: int) -> str:
        """A day from today on, at most so many days ahead; rarely one of the calendar's corners."""
        if self._draw.random() < _EXTREME_SHARE:
            return self._draw.choice(_EXTREME_DATES)
        return (datetime.now(UTC) + timedelta(days=self._draw.randint(0, most_days))).date().isoformat()

    async def _pick(self, table: str) -> int | None:
        """The id of a row, a young one more often than an old one; None where the table is empty."""
        name, key = quoted(table), quoted(f"{table}_id")
        statement = (
            f"SELECT {key} FROM {name} WHERE {key} > floor($1::float8 * (SELECT max({key}) FROM {name}))::int"
            f" ORDER BY {key} LIMIT 1"
        )
        found: int | None = await self.connection.fetchval(statement, self._draw.random() ** _RECENT)
        return found

    async def _insert(self, table: str, values: dict[str, Any]) -> int:
        places = ", ".join(f"${place}" for place in range(1, len(values) + 1))
        statement = (
            f"INSERT INTO {quoted(table)} ({', '.join(values)}, last_updated) VALUES ({places}, now()) RETURNING {table}_id"
        )
        key: int = await self.connection.fetchval(statement, *values.values())
        return key

    async def _update(self, table: str, key: int | None = None, **values: Any) -> None:
        """Change the row `key`, or a random row."""
        changes = ", ".join(f"{column} = ${place}" for place, column in enumerate(values, start=2))
        statement = f"UPDATE {quoted(table)} SET {changes}, last_updated = now() WHERE {table}_id = $1"
        await self.connection.execute(statement, await self._pick(table) if key is None else key, *values.values())
