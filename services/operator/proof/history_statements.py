"""The SQL of the history check, all of it on the warehouse. Pure text.

A version of a fact is named by the texts of its key and of its version columns, called i0, i1, … in this order.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from contracts.contract import Contract
from contracts.tables import Column, Fact
from contracts.warehouse import LEDGER, current_name
from shared.sql import quoted


@dataclass(frozen=True, slots=True)
class LoadedBatch:
    """What the ledger records about one batch and one table: a row of `shared.ledger.TABLE_BATCHES`."""

    batch_id: UUID
    run: int
    index: int
    loaded_at: datetime
    row_count: int


def rows_by_batch(contract: Contract, fact: Fact) -> str:
    """How many rows of `fact` each batch has written last."""
    return f"SELECT t._batch_id AS batch, count(*) AS row_count FROM {_name(contract, fact)} AS t GROUP BY t._batch_id"


def versions_elsewhere(contract: Contract, fact: Fact) -> str:
    """Of the versions of the batches $1 (uuid[]), named by $2, $3, … (text[]), those that no row of their own batch holds.

    With `position` from 1, how many rows hold the version, and the highest run among the batches that wrote them; rows that
    `wrong_runs` names count for no run.
    """
    parameters = ", ".join(f"${number}::text[]" for number in range(2, 2 + len(fact.identity)))
    rows = (  # one index lookup a version, which an aggregate keeps PostgreSQL from turning into a scan of the fact
        f"SELECT count(*) AS rows_found, max(l.run) FILTER (WHERE t._run = l.run) AS run, "
        f"coalesce(bool_or(t._batch_id = w.batch), false) AS is_own "
        f"FROM {_name(contract, fact)} AS t LEFT JOIN {LEDGER} AS l ON l.batch_id = t._batch_id "
        f"WHERE {_is_same(fact)}"
    )
    return (
        f"SELECT w.position, f.rows_found, f.run "
        f"FROM unnest($1::uuid[], {parameters}) WITH ORDINALITY AS w (batch, {_names(fact)}, position) "
        f"CROSS JOIN LATERAL ({rows}) AS f WHERE NOT f.is_own ORDER BY w.position"
    )


def strangers(contract: Contract, fact: Fact) -> str:
    """The rows that say they are of one of the batches $1 (uuid[]), and are none of the versions $2, $3, … (text[])."""
    parameters = ", ".join(f"${number}::text[]" for number in range(2, 2 + len(fact.identity)))
    return (
        f"SELECT {_texts(fact)}, t._batch_id AS batch FROM {_name(contract, fact)} AS t WHERE t._batch_id = ANY ($1::uuid[]) "
        f"AND NOT EXISTS (SELECT FROM unnest({parameters}) AS w ({_names(fact)}) WHERE {_is_same(fact)})"
    )


def rows_of_no_batch(contract: Contract, fact: Fact) -> str:
    """The rows of runs above $1, or loaded after $2, whose batch is not in the ledger."""
    return (
        f"SELECT {_texts(fact)}, t._batch_id AS batch FROM {_name(contract, fact)} AS t "
        f"WHERE NOT EXISTS (SELECT FROM {LEDGER} AS l WHERE l.batch_id = t._batch_id) "
        f"AND (t._run > $1 OR t._loaded_at > $2::timestamptz)"
    )


def wrong_runs(contract: Contract, fact: Fact) -> str:
    """The rows whose `_run` is not that of their batch."""
    return (
        f"SELECT {_texts(fact)}, t._run AS found, l.run AS expected FROM {_name(contract, fact)} AS t "
        f"JOIN {LEDGER} AS l ON l.batch_id = t._batch_id WHERE t._run <> l.run"
    )


def doubled_versions(contract: Contract, fact: Fact) -> str:
    """The versions that several rows hold."""
    return (
        f"SELECT {_names(fact)}, count(*) AS row_count FROM (SELECT {_texts(fact)} FROM {_name(contract, fact)} AS t) AS v "
        f"GROUP BY {_names(fact)} HAVING count(*) > 1"
    )


def wrong_currents(contract: Contract, fact: Fact) -> str:
    """The versions that the current view shows too rarely (`too_few` above 0) or too often (below).

    Current is, of the versions of a key, that of the highest run, then that of the highest version; nothing if it is deleted.
    """
    key = ", ".join(quoted("t", name) for name in fact.key)
    newest_first = ", ".join(f"{quoted('t', name)} DESC" for name in ("_run", *fact.version))
    ranked = (
        f"SELECT {_texts(fact)}, t._deleted_at, row_number() OVER (PARTITION BY {key} ORDER BY {newest_first}) AS place "
        f"FROM {_name(contract, fact)} AS t"
    )
    view = quoted(contract.warehouse_schema, current_name(fact.name))
    return (
        f"SELECT {_names(fact)}, sum(sign) AS too_few FROM ("
        f"SELECT {_names(fact)}, 1 AS sign FROM ({ranked}) AS r WHERE r.place = 1 AND r._deleted_at IS NULL "
        f"UNION ALL SELECT {_texts(fact)}, -1 FROM {view} AS t) AS both_sides "
        f"GROUP BY {_names(fact)} HAVING sum(sign) <> 0 ORDER BY {_names(fact)}"
    )


def _name(contract: Contract, fact: Fact) -> str:
    return quoted(contract.warehouse_schema, fact.name)


def _names(fact: Fact) -> str:
    return ", ".join(f"i{position}" for position in range(len(fact.identity)))


def _texts(fact: Fact) -> str:
    return ", ".join(f"{quoted('t', name)}::text AS i{position}" for position, name in enumerate(fact.identity))


def _is_same(fact: Fact) -> str:
    """Whether the row t holds the version that w names."""
    columns = ((position, fact.column(name)) for position, name in enumerate(fact.identity))
    return " AND ".join(f"{quoted('t', column.name)} = {_value(f'w.i{position}', column)}" for position, column in columns)


def _value(text: str, column: Column) -> str:
    """A text as a value of the column's type. A text stays as long as it is: a cast to varchar(3) would cut it."""
    return text if column.type.is_text else f"{text}::{column.type.sql}"
