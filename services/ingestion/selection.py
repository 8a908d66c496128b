"""The SQL that reads the source: which rows, and in which form they travel. Pure text.

Which rows (design: late commits are never lost). A row version is *changed* when the transaction that wrote it had not ended at
the horizon of the run before:

    age(xmin) BETWEEN 0 AND age(horizon)

`last_updated > watermark` would lose the rows of a transaction that began before the watermark and committed after it. age() is
relative to the transaction that computes it, so horizon and rows must be compared in one statement. A sub-transaction's xid is
above its parent's, so rows written under a savepoint are covered. `BETWEEN 0` drops rows more than 2^31 transactions old, whose
32-bit age is negative.

A row is *affected* when it changed or when one of its partners did: the rows on the paths of its lookups. A deleted row has no
version to read: now and then a run hashes the keys of all rows that are not affected instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from contracts.column_types import TEXT, ColumnType, verbatim
from contracts.contract import Contract
from contracts.expression_parts import columns_read
from contracts.expressions import TEXT_LENGTH_MAXIMUM
from contracts.messages import KeyRange
from contracts.tables import Join, Path, RemodelledTable, SourceColumn, SourceTable
from shared.codecs import codec_of
from shared.codecs.codec import MIB, VALUE_BYTES_MAXIMUM
from shared.equality import compared_text, is_partner, partner_conditions
from shared.expressions.in_sql import is_accepted
from shared.key_hashes import hashed
from shared.source_keys import Key, has_key, has_values, key_as_json, key_columns, key_literals, rows_of
from shared.sql import literal, quoted

EVERY_ROW = "true"  # the condition that every row is affected
XID_MODULUS = 2**32
UNKNOWN_TYPE = verbatim("unknown")  # of a column that the contract does not know
ROW_BYTES_MAXIMUM = 48 * MIB  # of the texts of one row
# Names in a page's query.
ROW_BYTES, BYTES_BEFORE = quoted("bytes of the row"), quoted("bytes before the row")
IS_ROW_HELD = f"{ROW_BYTES} <= {ROW_BYTES_MAXIMUM}"


@dataclass(frozen=True, slots=True)
class Selection:
    """What a run reads of each table."""

    contract: Contract
    full_tables: frozenset[str]  # tables of which every row is read
    horizon: int | None  # of the other tables, what changed since is read; None: every row
    orphans: bool = False  # also rows whose partner is gone: deleting it changes no row that refers to it
    reread: Mapping[str, tuple[Key, ...]] = field(default_factory=dict)  # by table: keys of rows that are read in any case
    carried: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # by table: columns that no contract knows, as text
    missing: Mapping[str, tuple[KeyRange, ...]] = field(default_factory=dict)  # by table: ranges that are read apart

    @property
    def is_full(self) -> bool:
        """Whether every row of every table is read."""
        return self.horizon is None

    def page(self, table: SourceTable, *, within: KeyRange, limit: int, byte_limit: int) -> list[str]:
        """The affected rows of `table` in a range of keys, at most `limit`, in key order.

        A row is left out if those before it have `byte_limit` bytes of text. The first of the queries that has a row has them
        all: where every row is read, one that adds up the bytes of all rows together, for half of the work, comes first.
        """
        rows, condition = self._affected(table)
        bounds = "" if within == KeyRange() else f" AND {_is_within(table, within)}"
        chosen = f"{rows} WHERE {condition}{bounds}"
        together = self._together(table, chosen, limit, byte_limit) if condition.startswith(EVERY_ROW) else []
        return [*together, self._bounded(table, chosen, limit, byte_limit)]

    def key_at(self, table: SourceTable, within: KeyRange, place: int) -> str:
        """The key of the row at `place`, from 1, of those in a range, as a JSON array; no row if there are fewer.

        The array is made in a query around it: PostgreSQL computes what is selected even of the rows that OFFSET skips.
        """
        key, rows = key_columns(table), f"{self._from(table, 't')} WHERE {_is_within(table, within)}"
        found = f"SELECT {key} FROM {rows} ORDER BY {key} OFFSET {place - 1} LIMIT 1"
        return f"SELECT {key_as_json(self.contract, table)} FROM ({found}) AS t"

    def partners(self, table: SourceTable, keys: list[Key], *, byte_limit: int) -> str:
        """The rows of `table` with one of `keys`, whose values have their form in a data frame.

        A row is left out if those before it have `byte_limit` bytes.
        """
        codecs = [codec_of(table.column(name).type) for name in table.key]
        rows = ([codec.sought(one) for one, codec in zip(key, codecs, strict=True)] for key in keys)
        chosen = f"{self._from(table, 't')} WHERE {has_values(self.contract, table, rows)}"
        return self._bounded(table, chosen, len(keys), byte_limit)

    def unread_hashes(self, table: SourceTable, star: RemodelledTable | None = None) -> str | None:
        """The hash of the key of every row of `table` that no page holds; with `star`, of those that its filter accepts.

        None where pages hold every row.
        """
        rows, affected = self._affected(table)
        if affected == EVERY_ROW:
            return None
        columns = (table.column(name) for name in table.key)
        texts = [f"{quoted('t', c.name)}::text" if c.type.is_whole_number else self._text(table, c) for c in columns]
        accepted = "" if star is None else f" AND {is_accepted(self.contract, star, 't')}"
        apart = "".join(f" AND ({_is_within(table, one)}) IS NOT TRUE" for one in self.missing.get(table.name, ()))
        return f"SELECT {hashed(texts)} AS hash FROM {rows} WHERE {affected} IS NOT TRUE{apart}{accepted}"

    def has_no_row(self, table: SourceTable) -> str:
        """Whether `table` is empty."""
        return f"SELECT NOT EXISTS (SELECT FROM {quoted(*self.contract.relation_of(table))})"

    def types(self, table: SourceTable) -> dict[str, ColumnType]:
        """The columns of a page of `table`, in their order."""
        return table.extract_types | dict.fromkeys(self.carried.get(table.name, ()), TEXT)

    def _together(self, table: SourceTable, chosen: str, limit: int, byte_limit: int) -> list[str]:
        """A page of the rows that FROM and WHERE, `chosen`, name, if all of them have fewer than `byte_limit` bytes of text.

        Then none of them is too large to travel. Not for columns whose bytes are known only from a text made for that.
        """
        wide, ordered = self._sizes(table), f"ORDER BY {key_columns(table)} LIMIT {limit}"
        known = {column.name: column for column in table.columns if column.type.is_text}
        if not wide or not wide.keys() <= known.keys() or byte_limit > VALUE_BYTES_MAXIMUM or table.row_id is not None:
            return []
        bytes_of = (f"coalesce({codec_of(known[name].type).byte_count(self._text(table, known[name]))}, 0)" for name in wide)
        summed = f"SELECT coalesce(sum(b), 0) FROM (SELECT {' + '.join(bytes_of)} AS b FROM {chosen} {ordered}) AS t"
        return [self._read(table, f"FROM {chosen} AND ({summed}) < {byte_limit} {ordered}", {})]

    def _bounded(self, table: SourceTable, chosen: str, limit: int, byte_limit: int) -> str:
        """A page of the rows that FROM and WHERE, `chosen`, name.

        Bytes are summed up before any text is made; the length of a large value is known without reading it.

        The innermost query has `limit` rows with the bytes of their wide values, the next one sums them up by row, and the next
        one adds a running total.
        """
        key = key_columns(table)
        ordered = f"FROM {chosen} ORDER BY {key} LIMIT {limit}"
        sizes = self._sizes(table)
        if not sizes:
            return self._read(table, ordered, sizes)
        known = {column.name: column.type for column in table.columns}
        texts = {column.name: self._text(table, column) for column in table.columns if column.type.is_text}
        asked = [
            f"{codec_of(known.get(name, UNKNOWN_TYPE)).byte_count(texts.get(name, quoted('t', name)))} AS {size}"
            for name, size in sizes.items()
        ]
        rows = f"SELECT {', '.join([*self._stored(table), *asked])} {ordered}"
        travels = " + ".join(f"CASE WHEN {_is_held(size)} THEN {size} ELSE 0 END" for size in sizes.values())
        sized = f"SELECT t.*, ({travels})::bigint AS {ROW_BYTES} FROM ({rows}) AS t"
        before = f"sum(CASE WHEN {IS_ROW_HELD} THEN {ROW_BYTES}::integer ELSE 0 END)"  # of bigints the sum would be a numeric
        window = f"OVER (ORDER BY {key} ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)"
        summed = f"SELECT t.*, coalesce({before} {window}, 0) AS {BYTES_BEFORE} FROM ({sized}) AS t"
        return self._read(table, f"FROM ({summed}) AS t WHERE {BYTES_BEFORE} < {byte_limit}", sizes)

    def _stored(self, table: SourceTable) -> list[str]:
        return [quoted("t", name) for name in (*(one.name for one in table.columns), *self.carried.get(table.name, ()))]

    def _sizes(self, table: SourceTable) -> dict[str, str]:
        """The columns whose values may be large, with a name for their bytes. Keys are indexed, so they are short."""
        wide = [column.name for column in table.columns if codec_of(column.type).is_wide and column.name not in table.key]
        return {name: quoted(f"bytes {number}") for number, name in enumerate([*wide, *self.carried.get(table.name, ())])}

    def _read(self, table: SourceTable, rows: str, sizes: Mapping[str, str]) -> str:
        """What travels of `rows`, in key order. The defect comes first: pandas would drop a byte-order mark at the very start.

        A value that can't travel is NULL. So each value is computed once, in a subquery that OFFSET keeps the planner from
        dissolving, and a defect is looked for only where a value is NULL and its column is not.
        """
        values = {table.key_text: key_as_json(self.contract, table)} if table.key_text else {}
        values |= {column.name: self._value(table, column) for column in table.columns}
        values |= {name: f"{quoted('t', name)}::text" for name in self.carried.get(table.name, ())}
        travels = {name: self._travels(table, name, size) for name, size in sizes.items()}
        for name, condition in travels.items():
            values[name] = f"CASE WHEN {condition} THEN {values[name]} END"
        names = {
            name: value if value == quoted("t", name) else quoted(f"value {number}")
            for number, (name, value) in enumerate(values.items())
        }
        computed = [f"{value} AS {names[name]}" for name, value in values.items() if value != names[name]]
        stored = [*self._stored(table), *((*sizes.values(), ROW_BYTES) if sizes else ())]
        selected = [f"{_defect(table, names, sizes, travels)} AS {quoted(table.defect)}"]
        selected += [f"{names[name]} AS {quoted(name)}" for name in values]
        fenced = f"SELECT {', '.join([*stored, *computed])} {rows} OFFSET 0"
        return f"SELECT {', '.join(selected)} FROM ({fenced}) AS t ORDER BY {key_columns(table)}"

    def _travels(self, table: SourceTable, name: str, size: str) -> str:
        """Whether a value of so many bytes travels.

        A short one that a filter reads does, even in a row that is too large: the proof reads it, and has to agree.
        """
        filters = (star.where for star in self.contract.remodelled_from(table.name) if star.where is not None)
        is_read = any(one.name == name for where in filters for one in columns_read(where))
        may_travel = f"({size} <= {4 * TEXT_LENGTH_MAXIMUM} OR {IS_ROW_HELD})" if is_read else IS_ROW_HELD
        return f"{_is_held(size)} AND {may_travel}"

    def _value(self, table: SourceTable, column: SourceColumn) -> str:
        """A column in the form in which it travels."""
        kind = column.type
        return self._text(table, column) if kind.travels_as_text else codec_of(kind).read(quoted("t", column.name))

    def _text(self, table: SourceTable, column: SourceColumn) -> str:
        """A column as text; without what PostgreSQL ignores when it compares keys, such as the padding of character(n)."""
        return compared_text(self.contract, table.name, column.name, quoted("t", column.name))

    def _affected(self, table: SourceTable) -> tuple[str, str]:
        """Where to look for the affected rows of `table`, called t, and the condition for one; as FROM and WHERE."""
        rows, paths = self._from(table, "t"), self.contract.paths_of(table.name)
        if self.is_full or not self.full_tables.isdisjoint({table.name, *(path[-1].table for path in paths)}):
            return rows, EVERY_ROW
        conditions = [self._changed("t")]
        if keys := self.reread.get(table.name):
            conditions.append(has_key(self.contract, table, keys))
        if not self.orphans:
            conditions += [self._has_changed_at_end(path) for path in paths]
            return rows, f"({' OR '.join(conditions)})"
        # Nearly every reference is looked up, to find none broken: one join of whole tables does that fastest.
        alias: dict[Path, str] = {(): "t"}
        for path in paths:
            alias[path] = f"p{len(alias)}"
            join, start, partner = path[-1], alias[path[:-1]], alias[path]
            rows += f" LEFT JOIN {self._partner(join, start, partner)}"
            refers = " AND ".join(f"{quoted(start, name)} IS NOT NULL" for name in join.on)
            is_missing = f"{quoted(partner, self.contract.source_table(join.table).key[0])} IS NULL"
            conditions += [self._changed(partner), f"({refers} AND {is_missing})"]
        return rows, f"({' OR '.join(conditions)})"

    def _has_changed_at_end(self, path: Path) -> str:
        """Whether a row has a partner at the end of `path` that changed.

        The path is joined in one subquery, not in one for each step: PostgreSQL then sees that few rows result from it, hashes
        them, and needs no index on the columns that refer to partners.
        """
        first, *others = path
        joined = self._from(self.contract.source_table(first.table), "p1")
        for place, join in enumerate(others, start=1):
            joined += f" JOIN {self._partner(join, f'p{place}', f'p{place + 1}')}"
        changed = self._changed(f"p{len(path)}")
        equal = partner_conditions(self.contract, first, "t", "p1")
        return " OR ".join(f"EXISTS (SELECT FROM {joined} WHERE {one} AND {changed})" for one in equal)

    def _partner(self, join: Join, start: str, partner: str) -> str:
        """What is joined to the row `start`: the table of its partner, and the condition."""
        table = self.contract.source_table(join.table)
        return f"{self._from(table, partner)} ON {is_partner(self.contract, join, start, partner)}"

    def _changed(self, alias: str) -> str:
        horizon = (self.horizon or 0) % XID_MODULUS
        return f"age({alias}.xmin) BETWEEN 0 AND age('{horizon}'::xid)"

    def _from(self, table: SourceTable, alias: str) -> str:
        return f"{rows_of(self.contract, table)} AS {alias}"


def _is_within(table: SourceTable, within: KeyRange) -> str:
    key = f"({key_columns(table)})"
    bounds = [(sign, bound) for sign, bound in ((">", within.after), ("<=", within.until)) if bound is not None]
    return " AND ".join(f"{key} {sign} {key_literals([bound])}" for sign, bound in bounds) or EVERY_ROW


def _defect(table: SourceTable, values: Mapping[str, str], sizes: Mapping[str, str], travels: Mapping[str, str]) -> str:
    checks, suspicions = [], []
    for column in table.columns:
        defects = codec_of(column.type).defects(quoted("t", column.name))
        defects += _too_large(sizes[column.name], travels[column.name]) if column.name in sizes else []
        checks += [f"CASE WHEN {condition} THEN {literal(f'{column.name} is {what}')} END" for condition, what in defects]
        suspicions += [f"{values[column.name]} IS NULL AND {quoted('t', column.name)} IS NOT NULL"] if defects else []
    return (
        f"CASE WHEN {' OR '.join(suspicions)} THEN nullif(concat_ws('; ', {', '.join(checks)}), '') END"
        if checks
        else "NULL::text"
    )


def _too_large(size: str, travels: str) -> list[tuple[str, str]]:
    """Name the wide columns of a row that is too large, not the row: joins can still use its other columns."""
    return [
        (f"NOT ({_is_held(size)})", f"larger than {VALUE_BYTES_MAXIMUM // MIB} MiB as text"),
        (f"{_is_held(size)} AND NOT ({travels})", f"in a row larger than {ROW_BYTES_MAXIMUM // MIB} MiB as text"),
    ]


def _is_held(size: str) -> str:
    """Whether a value is small enough to travel; NULL for NULL."""
    return f"{size} <= {VALUE_BYTES_MAXIMUM}"
