"""How the source tables of a contract can contradict themselves, and what may be made of them. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from contracts.column_types import BYTEA, JSONB, UUID, ColumnType
from contracts.datasets import Contents, Dataset
from contracts.objects import NO_SOURCES
from contracts.origins import FromSource
from contracts.tables import Dimension, Drift, Fact, SourceTable

if TYPE_CHECKING:
    from contracts.contract import Contract

_DELIVERED = (UUID, JSONB, BYTEA)  # of the types that travel as PostgreSQL writes them: those that shared/codecs reads as well
_DATASET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")


def source_problems(contract: Contract) -> Iterator[str]:
    """Every rule that the source tables break, a sentence each. Raises: ContractError for a column that a table lacks."""
    yield from repeated("two source tables", [table.name for table in contract.source_tables])
    kinds = dict[str | None, SourceTable]()
    for source in contract.source_tables:
        if (problem := name_problem(source.name)) is not None:
            yield f"'{source.name}': {problem}; give it another name in the contract, and its own as `table`"
        yield from repeated(f"'{source.name}' has two columns", [column.name for column in source.columns])
        for name in source.key:
            if not (kind := source.column(name).type).may_be_key:
                kinds_of_keys = "integer, bigint, numeric, text, enum, uuid, boolean, date, timestamp or timestamptz"
                yield f"'{source.name}.{name}' is a key and must be {kinds_of_keys}, not {kind.family}"
        if source.row_id is not None:
            yield from _row_id_problems(contract, source)
        if source.dataset is not None:
            yield from (f"'{source.name}' {problem}" for problem in _dataset_problems(contract, source, source.dataset))
        if source.source_name in NO_SOURCES - kinds.keys():
            yield f"a source can't be called '{source.source_name}', which is a folder of the buckets; give it another name"
        first = kinds.setdefault(source.source_name, source)
        if _kind(source) != _kind(first):
            yield (
                f"'{source.name}' comes from {_kind(source)}, and '{first.name}' of the same source from {_kind(first)}; "
                "make them two `sources`"
            )


def repeated(what: str, names: list[str]) -> Iterator[str]:
    """A sentence for each of the `names` that occurs twice."""
    return (f"{what} '{name}'" for name in dict.fromkeys(names) if names.count(name) > 1)


def name_problem(name: str) -> str | None:
    """Why a source table may not have this name, which is part of the keys of its objects; None if it may."""
    is_unfit = "/" in name or min(name) < " "
    return "its name has a '/' or a control character, which the key of an object can't have" if is_unfit else None


def _row_id_problems(contract: Contract, source: SourceTable) -> Iterator[str]:
    """A changed row has another hash, so it is another row; and nothing can refer to it."""
    remedy = f"declare its key, with `full: true`, instead of `row_id: {source.row_id}`"
    for table in contract.remodelled_from(source.name):
        if not isinstance(table, Fact) or table.version:
            yield f"'{table.name}' is made of '{source.name}', which has no key: make it a fact without version, or {remedy}"
    if any(join.table == source.name for join in contract.joins):
        yield f"'{source.name}' is joined, but has no key to join it by; {remedy}"
    if source.drift is Drift.CARRY:
        yield f"'{source.name}' can't be carried, since it has no key; {remedy}"


def _kind(source: SourceTable) -> str:
    if source.dataset is None:
        return "a database"
    request = source.dataset.request
    return f"the API {request.api.url}" if request is not None else "files"


def _dataset_problems(contract: Contract, source: SourceTable, dataset: Dataset) -> Iterator[str]:
    """Data sets have no catalog and no common snapshot; what they are called is a folder of the drop zone."""
    if not _DATASET_NAME.fullmatch(source.name):
        yield "is a data set: its name must be 1 to 63 letters A to Z, digits, '_' and '-', beginning with a letter or a digit"
    if source.drift is Drift.CARRY:
        yield "is a data set, of which only declared columns are read; remove it from `carry`"
    for column in source.columns:
        if column.type.is_verbatim and not column.type.is_decimal and column.type not in _DELIVERED:
            yield f"is a data set, and '{column.name}' is {column.type.name}, which only a database delivers; declare it text"
    for table in contract.remodelled_tables:
        if table.source == source.name and table.lookups:
            yield (
                f"is a data set, and '{table.name}', which is made of it, joins '{table.lookups[0].table}': they have no "
                "common snapshot; let a fact refer to a dimension by `references`, or join them in a view"
            )
    databases = {table.source_name for table in contract.source_tables if table.dataset is None} - {None}
    if dataset.request is not None and dataset.request.api.secret in databases:
        yield f"would send the login of the database '{dataset.request.api.secret}' to an API; name another secret"
    if dataset.version is not None:
        yield from _version_problems(contract, source, dataset.version, dataset.contents)


def _version_problems(contract: Contract, source: SourceTable, version: str, contents: Contents) -> Iterator[str]:
    """Loading compares the versions of two images of a row by what the star holds of them."""
    column = source.column(version)
    if contents is Contents.SNAPSHOT:
        yield "has a `version`, which only increments have, since a snapshot replaces all rows; remove it"
    if version in source.key:
        yield f"has the `version` '{version}' in its key; name another column, which tells states of one key apart"
    if column.nullable:
        yield f"has the `version` '{version}', which may be NULL; declare it `not null`"
    if not _orders(column.type):
        yield (
            f"has the `version` '{version}', which is {column.type.family}; it must be integer, bigint, numeric of at most 18 "
            "digits, date, timestamp or timestamptz"
        )
    for table in contract.remodelled_from(source.name):
        if not any(one.origin == FromSource(version) and not one.nullable for one in table.columns):
            problem = "must copy it as a column that is not nullable"
            yield f"has the `version` '{version}', which loading compares: '{table.name}' {problem}"
        if isinstance(table, Fact) and table.version:
            yield f"has the `version` '{version}', and '{table.name}' has a `version` of its own; remove one of them"
        if isinstance(table, Dimension) and table.history:
            yield f"has the `version` '{version}', and '{table.name}' has `history`, which needs the order of runs; remove one"
        if table.where is not None:
            yield (
                f"has the `version` '{version}', and '{table.name}' has a `where`, by which an old version of a row would "
                "delete it; remove one, or filter in a view"
            )


def _orders(kind: ColumnType) -> bool:
    return kind.unscaled is not None or kind.is_moment
