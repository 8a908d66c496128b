"""A star that runs at once, proposed from a source's catalog; what it leaves out, it says in comments. Pure."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from contracts.column_types import BIGINT, INTEGER, Kind
from contracts.tables import TABLE_NAME_BYTES_MAXIMUM
from contracts.yaml_text import BYTES_MAXIMUM, read_contract
from services.operator.contract.catalog import Catalog, CatalogColumn, CatalogTable, ForeignKey, free_name
from services.operator.contract.draft import CALENDAR, Draft, TableDraft, path_of
from services.operator.contract.roles import (
    creation_time,
    facts_among,
    filter_of_deleted,
    is_change_time,
    is_heavy,
    is_of_migrations,
    is_secret,
    is_timestamp,
    naming_columns,
    words,
)
from services.operator.contract.source_part import source_part
from services.operator.contract.text import scalar
from services.operator.errors import NotFoundError, UsageError

HOPS_MAXIMUM = 3  # of a lookup
LOOKED_UP_MAXIMUM = 6  # columns of one table
LOOKUP_ROWS_MAXIMUM = 100_000  # of a table to look up in, unless it has fewer rows than the one that refers to it
_MIGRATIONS = "the name says that a tool keeps its migrations in it"
_CONFIDENTIAL = "the name says that it may hold a secret"
_HEAVY = "documents, pictures and shapes stay at the source"
_UNREADABLE = "the role has no privilege to read it"
_MOMENT_ENDS = re.compile(r"_(?:at|on|ts|date|time|datetime|timestamp)$|(?<=[a-z])(?:At|On|Date|Time|DateTime|Timestamp)$")


def propose(catalog: Catalog, name: str) -> str:
    """The text of a contract called `name`, which holds together. Raises: NotFoundError, UsageError."""
    draft = _Proposal.of(catalog).draft(name)
    if len(draft.text().encode()) > BYTES_MAXIMUM:
        megabytes = BYTES_MAXIMUM // 1024**2
        raise UsageError(f"the contract would have more than {megabytes} MiB; choose fewer tables with --include or --exclude")
    draft.settle()
    if not draft.tables:
        reasons = [f"{table.name}: {table.problem}" for table in catalog.tables.values() if table.problem]
        because = f" ({'; '.join(reasons[:5])})" if reasons else ""
        raise NotFoundError(
            f"{_of_schemas(catalog)} has no table of which a star can be made{because}; see --schema, --include"
        )
    text = draft.text()
    read_contract(text, name)
    return text


@dataclass(frozen=True, slots=True)
class _Proposal:
    """What is known about all tables while the columns of each are chosen."""

    catalog: Catalog
    tables: Mapping[str, CatalogTable]
    facts: frozenset[str]
    names: Mapping[str, str]  # of the star's tables, by those of the source
    hubs: frozenset[str]  # the tables to which facts refer

    @classmethod
    def of(cls, catalog: Catalog) -> _Proposal:
        tables = {
            name: table
            for name, table in catalog.readable.items()
            if not any(map(is_secret, table.key)) and not is_of_migrations(name)
        }
        facts = facts_among(tables) | {name for name, table in tables.items() if table.row_id}
        taken, names = {CALENDAR}, dict[str, str]()
        for name in tables:
            wish = f"{'fact' if name in facts else 'dim'}_{name.strip('_')}"
            names[name] = free_name(wish, taken, TABLE_NAME_BYTES_MAXIMUM)
            taken.add(names[name])
        hubs = {link.table for name in facts for link in tables[name].foreign_keys}
        return cls(catalog, tables, frozenset(facts), names, frozenset(hubs))

    def draft(self, name: str) -> Draft:
        """Every table, dimensions first."""
        dimensions = {self.names[one]: self._dimension(table) for one, table in self.tables.items() if one not in self.facts}
        facts = {self.names[one]: self._fact(table) for one, table in self.tables.items() if one in self.facts}
        for draft in facts.values():
            if (base := self.tables[draft.base]).row_id is not None:
                draft.version = []
                draft.remarks.append(
                    f"Every run reads all of it: {base.why_full}. Its rows are told apart by a hash, {base.row_id}; "
                    "if they have a key, write `full: true` and `key: …` in its source part, in the place of `row_id`."
                )
        source = source_part(self.catalog, self.tables)
        return Draft(name, self.catalog.schema, dimensions | facts, source, [*self._introduction()])

    def _introduction(self) -> Iterator[str]:
        yield f"Proposed by `starlift init` from {_of_schemas(self.catalog)}. Change the star as you like."
        yield "The `source` part repeats the catalog: `starlift pull` brings it up to date."
        for table in self.catalog.tables.values():
            if table.name not in self.tables:
                other = _MIGRATIONS if is_of_migrations(table.name) else f"its key holds a column of which {_CONFIDENTIAL}"
                way = f" `--include {table.name}` adds it, read in full by every run." if table.why_full else ""
                yield f"Left out: {table.name}: {table.problem or other}.{way}"

    def _started(self, kind: str, table: CatalogTable) -> TableDraft:
        others = sorted({link.table for link in table.foreign_keys})
        refers = f"; refers to {', '.join(others)}" if others else ""
        remarks = [f"About {table.rows:,} rows{refers}.", *([table.comment] if table.comment else [])]
        if (where := filter_of_deleted(table)) is not None:
            remarks.append(f"Rows may be marked as deleted; to leave them out: `where: {scalar(where)}`.")
        return TableDraft(kind, table.name, [*remarks, *(f"Not followed: {remark}." for remark in table.remarks)])

    def _usable(self, table: CatalogTable, draft: TableDraft) -> Iterator[CatalogColumn]:
        """The columns to take; the draft keeps the reasons against the others."""
        for column in table.columns:
            reason = _why_not(column)
            if reason is None:
                yield column
            else:
                draft.left_out[reason].append(column.name)

    def _dimension(self, table: CatalogTable) -> TableDraft:
        draft = self._started("dimension", table)
        for column in self._usable(table, draft):
            draft.add(column.name, _copy(column, column.name))
        for wish, column, path in self._looked_up(table):
            draft.add(next((name for name in wish if name not in draft.columns), wish[-1]), _copy(column, *path))
        return draft

    def _looked_up(self, base: CatalogTable) -> Iterator[tuple[list[str], CatalogColumn, tuple[str, ...]]]:
        """Columns of the tables to which a dimension refers: names to choose from, the column, and the path to it.

        The way leads over at most HOPS_MAXIMUM tables, to each by the shortest, and ends where a fact leads anyway.
        """
        waiting = deque([(base, tuple[str, ...](), tuple[str, ...](), "")])
        reached = dict[str, str]()  # the tables, and the first one on the way to each
        while waiting:
            table, steps, names, first = waiting.popleft()
            for link in table.foreign_keys:
                partner, step = self.tables.get(link.table), _step(table, link)
                if partner is None or step is None or partner.rows > max(LOOKUP_ROWS_MAXIMUM, base.rows):
                    continue
                start = first or partner.name
                if steps and (reached.get(partner.name, start) != start or partner.name in self.hubs | {base.name}):
                    continue
                reached.setdefault(partner.name, start)
                path, spoken = (*steps, step), (*names, _spoken(step))
                for column in self._describing(partner):
                    yield (
                        [_joined(*spoken[-count:], column.name) for count in range(1, len(spoken) + 1)],
                        column,
                        (*path, column.name),
                    )
                if len(path) < HOPS_MAXIMUM and partner.name not in self.hubs | {base.name}:
                    waiting.append((partner, path, spoken, start))

    def _describing(self, table: CatalogTable) -> list[CatalogColumn]:
        """The columns that describe its rows to whoever reads one that refers to it."""
        linked = {name for link in table.foreign_keys for name in link.columns}.union(table.key)
        named = naming_columns(table)
        texts = [column for column in table.columns if column.type.is_text and column.name not in linked]
        found = named if table.name in self.hubs and named else texts
        return [column for column in found if _why_not(column) is None][:LOOKED_UP_MAXIMUM]

    def _fact(self, table: CatalogTable) -> TableDraft:
        draft, referred = self._started("fact", table), set[str]()
        links = {link.columns[0]: link for link in table.foreign_keys if len(link.columns) == 1}
        for column in self._usable(table, draft):
            reference = self._reference(column, links.get(column.name))
            if reference and column.name in links:
                referred.add(links[column.name].table)
            if column.name in table.key or not is_timestamp(column):
                draft.add(column.name, _copy(column, column.name) | reference)
            if is_timestamp(column):
                before = creation_time(table, column) if is_change_time(column) and column.nullable else None
                names = self._add_moment(draft, column, {"absent": before.name} if before else {})
                if is_change_time(column) and (before or not column.nullable):
                    draft.version = names
        for link in table.foreign_keys:
            if link.table not in referred | self.facts:
                why = "a reference needs a key of one column, of its own type"
                draft.remarks.append(f"No reference to {link.table} by ({', '.join(link.columns)}): {why}.")
            if link.table in self.tables and link.table != table.name and (step := _step(table, link)) is not None:
                self._add_of_partner(draft, self.tables[link.table], step, referred)
        if not draft.version and table.row_id is None:
            draft.remarks.append("No NOT NULL timestamp tells versions apart: the fact keeps the newest row.")
        return draft

    def _reference(self, column: CatalogColumn, link: ForeignKey | None) -> dict[str, Any]:
        """To what a fact's column refers: a dimension, or the calendar."""
        if link is not None and link.table in self.tables and link.table not in self.facts:
            key = self.tables[link.table].column(self.tables[link.table].key[0])
            if (column.type, key.type) == (INTEGER, BIGINT):
                return {"references": self.names[link.table], "type": "bigint"}
            is_alike = column.type == key.type or (column.type.is_text and key.type.is_text)
            return {"references": self.names[link.table]} if is_alike else {}
        return {"references": CALENDAR} if column.type.kind is Kind.DATE else {}

    def _add_moment(self, draft: TableDraft, column: CatalogColumn, absent: Mapping[str, str]) -> list[str]:
        """Add the date and the time of a timestamp, or of what stands for its NULL; return the names of the two."""
        stem = _MOMENT_ENDS.sub("", column.name)
        path = path_of(column.name)
        day = f"{stem}_day" if f"{stem}_date" in draft.columns else f"{stem}_date"
        date = {"date_of": path, **absent, "references": CALENDAR}
        return [draft.add(day, date), draft.add(f"{stem}_time", {"time_of": path, **absent})]

    def _add_of_partner(self, draft: TableDraft, partner: CatalogTable, step: str, referred: set[str]) -> None:
        """Add dimensions to which a fact does not refer itself: those of an order to its lines, with the order's dates.

        Of a dimension, only those to which another fact refers: the film of a copy of it.
        """
        is_fact = partner.name in self.facts
        links = {link.columns[0]: link for link in partner.foreign_keys if len(link.columns) == 1}
        for column in partner.columns:
            link = links.get(column.name)
            reference = self._reference(column, link)
            is_date = is_timestamp(column) and not is_change_time(column)
            is_wanted = is_fact if link is None else link.table not in referred and (is_fact or link.table in self.hubs)
            if _why_not(column) is not None or not is_wanted or not (reference or is_date):
                continue
            path = path_of(step, column.name)
            name = column.name if column.name not in draft.columns else _joined(_spoken(step), column.name)
            date = {"date_of": path, "references": CALENDAR}
            draft.add(name, date if is_date else {"from": path} | reference)
            if link is not None:
                referred.add(link.table)


def _of_schemas(catalog: Catalog) -> str:
    """What the tables are of."""
    others = catalog.schemas[1:]
    return f"schemas {', '.join((catalog.schema, *others))}" if others else f"schema '{catalog.schema}'"


def _why_not(column: CatalogColumn) -> str | None:
    if not column.is_readable:
        return _UNREADABLE
    if is_secret(column.name):
        return _CONFIDENTIAL
    return _HEAVY if is_heavy(column) else None


def _copy(column: CatalogColumn, *path: str) -> dict[str, Any]:
    """A copy of a column; a type that the warehouse may lack becomes a text."""
    as_text = {"type": "text"} if column.is_foreign and column.type.is_verbatim else {}
    return {"from": path_of(*path)} | as_text


def _step(table: CatalogTable, link: ForeignKey) -> str | None:
    """What names a foreign key in a path: its column, or the other table if no other leads there; None: nothing does."""
    if len(link.columns) == 1:
        return None if _why_not(table.column(link.columns[0])) else link.columns[0]
    is_named = (link.table,) in [one.columns for one in table.foreign_keys]  # a column called so leads elsewhere
    return None if is_named or [one.table for one in table.foreign_keys].count(link.table) > 1 else link.table


def _spoken(step: str) -> str:
    """The name of what a foreign key leads to: `city` for city_id and CityId."""
    for end in ("_id", "_ID", "Id", "ID", "_fk", "_key"):
        if step.endswith(end) and len(step) > len(end):
            return step.removesuffix(end)
    return step


def _joined(*names: str) -> str:
    """A name for a column that was looked up: `city` for the city of a city, else `address_district`."""
    *steps, column = names
    spoken = words(column).split()
    while steps and spoken[: len(words(steps[-1]).split())] == words(steps[-1]).split():
        steps.pop()
    return "_".join([*steps, column])
