"""The SQL of the history check, all of it on the warehouse. Pure text."""

from __future__ import annotations

from dataclasses import dataclass

from contracts.contract import Contract
from contracts.tables import Column, Fact
from contracts.warehouse import BATCH_ID, DELETED_AT, LEDGER, LOADED_AT, RUN
from services.operator.proof.actual import current_relation
from shared.sql import quoted


@dataclass(frozen=True, slots=True)
class FactHistorySql:
    """The statements about one fact; versions are named by the texts of their key and version columns: i0, i1, and so on."""

    contract: Contract
    fact: Fact

    @property
    def table(self) -> str:
        """The fact table."""
        return quoted(self.contract.warehouse_schema, self.fact.name)

    def rows_by_batch(self) -> str:
        """How many rows each batch has written last."""
        return f"SELECT t.{BATCH_ID} AS batch, count(*) AS row_count FROM {self.table} AS t GROUP BY t.{BATCH_ID}"

    def versions_elsewhere(self) -> str:
        """Of the versions of the batches $1 (uuid[]), named by $2, $3, … (text[]), those that no row of their own batch holds.

        With `position` from 1, how many rows hold the version, and the highest run among the batches that wrote them; rows
        that `wrong_runs` names count for no run.
        """
        rows = (  # one index lookup a version, which an aggregate keeps PostgreSQL from turning into a scan of the fact
            f"SELECT count(*) AS rows_found, max(l.run) FILTER (WHERE t.{RUN} = l.run) AS run, "
            f"coalesce(bool_or(t.{BATCH_ID} = w.batch), false) AS is_own "
            f"FROM {self.table} AS t LEFT JOIN {self.contract.own(LEDGER)} AS l ON l.batch_id = t.{BATCH_ID} "
            f"WHERE {self._is_same}"
        )
        return (
            f"SELECT w.position, f.rows_found, f.run "
            f"FROM unnest($1::uuid[], {self._given}) WITH ORDINALITY AS w (batch, {self._names}, position) "
            f"CROSS JOIN LATERAL ({rows}) AS f WHERE NOT f.is_own ORDER BY w.position"
        )

    def strangers(self) -> str:
        """The rows that say they are of one of the batches $1 (uuid[]), and are none of the versions $2, $3, … (text[])."""
        return (
            f"SELECT {self._texts}, t.{BATCH_ID} AS batch FROM {self.table} AS t WHERE t.{BATCH_ID} = ANY ($1::uuid[]) "
            f"AND NOT EXISTS (SELECT FROM unnest({self._given}) AS w ({self._names}) WHERE {self._is_same})"
        )

    def rows_of_no_batch(self) -> str:
        """The rows of runs above $1, or loaded after $2, whose batch is not in the ledger."""
        return (
            f"SELECT {self._texts}, t.{BATCH_ID} AS batch FROM {self.table} AS t "
            f"WHERE NOT EXISTS (SELECT FROM {self.contract.own(LEDGER)} AS l WHERE l.batch_id = t.{BATCH_ID}) "
            f"AND (t.{RUN} > $1 OR t.{LOADED_AT} > $2::timestamptz)"
        )

    def wrong_runs(self) -> str:
        """The rows whose run is not that of their batch."""
        return (
            f"SELECT {self._texts}, t.{RUN} AS found, l.run AS expected FROM {self.table} AS t "
            f"JOIN {self.contract.own(LEDGER)} AS l ON l.batch_id = t.{BATCH_ID} WHERE t.{RUN} <> l.run"
        )

    def doubled_versions(self) -> str:
        """The versions that several rows hold."""
        return (
            f"SELECT {self._names}, count(*) AS row_count FROM (SELECT {self._texts} FROM {self.table} AS t) AS v "
            f"GROUP BY {self._names} HAVING count(*) > 1"
        )

    def wrong_currents(self) -> str:
        """The versions that the current view shows too rarely (`too_few` above 0) or too often (below).

        Current is, of the versions of a key, that of the highest run, then that of the highest version; nothing if it is
        deleted.
        """
        key = ", ".join(quoted("t", name) for name in self.fact.key)
        newest_first = ", ".join(f"{quoted('t', name)} DESC" for name in (RUN, *self.fact.version))
        ranked = (
            f"SELECT {self._texts}, t.{DELETED_AT}, row_number() OVER (PARTITION BY {key} ORDER BY {newest_first}) AS place "
            f"FROM {self.table} AS t"
        )
        return (
            f"SELECT {self._names}, sum(sign) AS too_few FROM ("
            f"SELECT {self._names}, 1 AS sign FROM ({ranked}) AS r WHERE r.place = 1 AND r.{DELETED_AT} IS NULL "
            f"UNION ALL SELECT {self._texts}, -1 FROM {current_relation(self.contract, self.fact)} AS t) AS both_sides "
            f"GROUP BY {self._names} HAVING sum(sign) <> 0 ORDER BY {self._names}"
        )

    @property
    def _names(self) -> str:
        return ", ".join(f"i{position}" for position in range(len(self.fact.identity)))

    @property
    def _texts(self) -> str:
        return ", ".join(f"{quoted('t', name)}::text AS i{position}" for position, name in enumerate(self.fact.identity))

    @property
    def _given(self) -> str:
        """The parameters that name versions, after that of the batches."""
        return ", ".join(f"${number}::text[]" for number in range(2, 2 + len(self.fact.identity)))

    @property
    def _is_same(self) -> str:
        """Whether the row t holds the version that w names."""
        columns = ((position, self.fact.column(name)) for position, name in enumerate(self.fact.identity))
        return " AND ".join(f"{quoted('t', column.name)} = {_value(f'w.i{position}', column)}" for position, column in columns)


def _value(text: str, column: Column) -> str:
    """A text as a value of the column's type. A text stays as long as it is: a cast to varchar(3) would cut it."""
    return text if column.type.is_text else f"{text}::{column.type.sql}"
