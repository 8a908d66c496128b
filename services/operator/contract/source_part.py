"""The part of a contract that repeats the catalog: made for the tables that a star needs, compared, and put in place. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from contracts.source_document import NOT_NULL, SourceDocument, SourceTableDocument
from contracts.type_names import type_name
from contracts.yaml_text import document_data
from services.operator.contract.catalog import Catalog, CatalogTable
from services.operator.contract.text import source_text, sources_text
from services.operator.errors import UsageError

Part = dict[str, dict[str, Any]]  # `source.tables` of a document


def source_part(catalog: Catalog, roots: Iterable[str], before: Mapping[str, SourceTableDocument] | None = None) -> Part:
    """The tables `roots`, as far as they can be read, and all to which foreign keys lead from them.

    What was declared `before` stays: which tables are read in full, and by which key.
    """
    known, wanted = catalog.readable, list(roots)
    found = set[str]()
    while wanted:
        if (name := wanted.pop()) in known and name not in found:
            found.add(name)
            wanted += [link.table for link in known[name].foreign_keys]
    return {name: _table(table, (before or {}).get(name)) for name, table in known.items() if name in found}


def _table(table: CatalogTable, before: SourceTableDocument | None) -> dict[str, Any]:
    columns = {
        one.name: type_name(one.type) + ("" if one.nullable else NOT_NULL) for one in table.columns if one.name != table.row_id
    }
    key: dict[str, Any] = {"row_id": table.row_id} if table.row_id else {"key": list(table.key)}
    if before is not None and before.row_id and before.row_id not in columns:
        key = {"row_id": before.row_id}
    elif before is not None and before.full and columns.keys() >= set(before.key):
        key = {"full": True, "key": list(before.key)}
    place = {"schema": table.schema, "table": table.relation}
    links = {", ".join(link.columns): link.table for link in table.foreign_keys}
    found = {word: name for word, name in place.items() if name is not None} | key | {"columns": columns}
    return found | ({"foreign_keys": links} if links else {})


def described_tables(part: object) -> Mapping[str, SourceTableDocument]:
    """The tables of a document's part `source`; none if it is missing or not valid."""
    try:
        return SourceDocument.model_validate(part).tables
    except ValidationError:
        return {}


def roots_of(star: object) -> list[str]:
    """The tables of the source that a document's star names."""
    entries = [entry for entry in star.values() if isinstance(entry, dict)] if isinstance(star, dict) else []
    named = [entry.get(kind) for entry in entries for kind in ("dimension", "fact")]
    for entry in entries:
        joins = entry.get("joins")
        named += [join.get("table") for join in joins.values() if isinstance(join, dict)] if isinstance(joins, dict) else []
    return list(dict.fromkeys(name for name in named if isinstance(name, str)))


def part_of(document: Mapping[str, Any], source: str | None) -> object:
    """The part of a source in a document, valid or not: of the only one, or of the one of several that has this name."""
    if source is None:
        return document.get("source")
    parts = document.get("sources")
    return parts.get(source) if isinstance(parts, dict) else None


def has_datasets(part: object) -> bool:
    """Whether a source's part, valid or not, has tables whose rows are delivered."""
    tables = part.get("tables") if isinstance(part, dict) else None
    found = tables.values() if isinstance(tables, dict) else ()
    return any(isinstance(table, dict) and not table.keys().isdisjoint({"file", "request"}) for table in found)


def others_of(document: Mapping[str, Any], source: str | None) -> dict[str, dict[str, Any]]:
    """The parts of the other sources, as the document has them."""
    parts = document.get("sources") if source is not None else None
    found = parts.items() if isinstance(parts, dict) else ()
    return {name: part for name, part in found if name != source and isinstance(part, dict)}


def with_source_part(text: str, part: Part, name: str, source: str | None = None) -> str:
    """The document `text` with another source part, that of `source`; everything above the line `source:` stays as it is.

    Raises: UsageError if something follows the source part; ContractTextError for a text that is not YAML.
    """
    if source is None:
        return _with_end(text, name, "source", source_text({"tables": part}))
    data, _ = document_data(text, name)
    known = data.get("sources") if isinstance(data, dict) else None
    others = others_of(data, source) if isinstance(data, dict) else {}
    order = dict.fromkeys([*(known if isinstance(known, dict) else ()), source])
    parts = {one: {"tables": part} if one == source else others.get(one, {}) for one in order}
    return _with_end(text, name, "sources", sources_text(parts))


def with_named_source(text: str, name: str, source: str) -> str:
    """The document `text`, whose `source` becomes the first of several `sources`. Raises: as with_source_part()."""
    part = document_data(text, name)[0]["source"]
    return _with_end(text, name, "source", sources_text({source: part if isinstance(part, dict) else {}}))


def _with_end(text: str, name: str, key: str, end: str) -> str:
    """The document `text` with `end` in the place of what begins with the line of `key`, or at its end if it has none."""
    data, lines = document_data(text, name)
    if not isinstance(data, dict) or key not in data:
        return text.rstrip("\n") + "\n\n" + end
    line = lines[key,]
    if after := [other for other in data if lines[other,] > line]:
        raise UsageError(f"{name}:{lines[after[0],]}: '{after[0]}' follows `{key}`; move `{key}` to the end of the file")
    rows = text.splitlines(keepends=True)
    if not rows[line - 1].lstrip("\"'").startswith(key):
        raise UsageError(f"{name}:{line}: `{key}` does not begin its line; write it as `{key}:`, on a line of its own")
    return "".join(rows[: line - 1]) + end


def differences(before: object, after: Part) -> Iterator[str]:
    """How the source part `after` differs from what a document had before, a line each; types are compared, not spellings."""
    old, new = described_tables(before), described_tables({"tables": after})
    yield from (f"+ table {name}" for name in new if name not in old)
    yield from (f"- table {name}" for name in old if name not in new)
    for name in new:
        if name in old:
            yield from (f"{mark} {name}.{what}" for mark, what in _table_differences(old[name], new[name]))


def _table_differences(old: SourceTableDocument, new: SourceTableDocument) -> Iterator[tuple[str, str]]:
    yield from (("+", f"{name}: {_typed(new, name)}") for name in new.columns if name not in old.columns)
    yield from (("-", name) for name in old.columns if name not in new.columns)
    for name in new.columns:
        if name in old.columns and old.columns[name] != new.columns[name]:
            yield "~", f"{name}: {_typed(old, name)} -> {_typed(new, name)}"
    if old.key != new.key:
        yield "~", f"key: {', '.join(old.key)} -> {', '.join(new.key)}"
    for mark, one, other in (("+", new, old), ("-", old, new)):
        links = one.foreign_keys.items() - other.foreign_keys.items()
        yield from ((mark, f"foreign_keys: {columns} -> {table}") for columns, table in sorted(links))


def _typed(table: SourceTableDocument, name: str) -> str:
    column = table.columns[name]
    return type_name(column.type) + ("" if column.nullable else NOT_NULL)
