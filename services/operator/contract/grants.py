"""The SQL that creates roles with the rights that their programs need, and no others. Pure text, derived from the contract.

It may be run repeatedly, and by an administrator who is not a superuser. It sets no passwords: a person does, and running it
again keeps them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from contracts.contract import Contract
from contracts.tables import NAME_BYTES_MAXIMUM, Drift, SourceTable
from services.operator.errors import UsageError
from services.operator.wording import printable
from shared.sql import literal, quoted


def source_grants(contract: Contract, reader: str, prover: str) -> str:
    """Two roles that may SELECT what the contract reads. Raises: UsageError for names that no two roles can have.

    They lose every other right on these tables, such as on a column that has left the contract.
    """
    roles = _checked(reader, prover)
    schemas = dict.fromkeys(schema for schema, _ in map(contract.relation_of, contract.source_tables))
    return _script(
        f"the source of contract {printable(contract.name)!r}, as the owner of its tables or a superuser",
        roles,
        [
            _on_database("GRANT CONNECT", f"TO {_listed(roles)}"),
            f"GRANT USAGE ON SCHEMA {_listed(schemas)} TO {_listed(roles)};",
            *(line for table in contract.source_tables for line in _reading(contract, table, _listed(roles))),
        ],
    )


def warehouse_grants(contract: Contract, loader: str, prover: str, analyst: str) -> str:
    """A role that loads the star, one that proves it, and one that queries it. Raises: as `source_grants`.

    The loader owns what it creates, so its own default privileges reach each table and view that a later contract adds.
    """
    roles, star, ledger = _checked(loader, prover, analyst), contract.warehouse_schema, contract.ledger_schema
    is_delivered = any(table.dataset is not None for table in contract.source_tables)
    own, readers = quoted(loader), _listed((prover, analyst))
    return _script(
        f"the warehouse of contract {printable(contract.name)!r}, as the owner of the database or a superuser",
        roles,
        [
            "-- Only a member of the loader may create schemas and set default privileges for it.",
            _do(f"IF NOT pg_has_role({literal(loader)}, 'USAGE') THEN GRANT {own} TO CURRENT_USER; END IF;"),
            "-- PostgreSQL lets everyone create temporary tables and, before version 15, tables in schema public.",
            _on_database("REVOKE TEMPORARY", f"FROM PUBLIC, {readers}"),
            _do("IF to_regnamespace('public') IS NOT NULL THEN REVOKE CREATE ON SCHEMA public FROM PUBLIC; END IF;"),
            _on_database("GRANT CONNECT", f"TO {_listed(roles)}"),
            *(["-- A proof of data sets reads what was delivered into temporary tables."] if is_delivered else []),
            _on_database("GRANT TEMPORARY", f"TO {_listed((loader, prover)) if is_delivered else own}"),
            *(
                line
                for schema in (star, ledger)
                for line in (
                    f"CREATE SCHEMA IF NOT EXISTS {quoted(schema)} AUTHORIZATION {own};",
                    f"GRANT USAGE, CREATE ON SCHEMA {quoted(schema)} TO {own};",
                )
            ),
            *_reading_all(star, loader, readers),
            *_reading_all(ledger, loader, quoted(prover)),
        ],
    )


def _reading(contract: Contract, table: SourceTable, roles: str) -> Iterator[str]:
    """SELECT on the columns of a table, and on xmin, by which a run finds what has changed; a view has none."""
    name = quoted(*contract.relation_of(table))
    yield f"REVOKE ALL ON {name} FROM {roles};"
    columns = [quoted(column.name) for column in table.stored_columns]
    if (
        table.drift is Drift.CARRY or not columns
    ):  # a column that is added later is carried as well; without any column, rows are counted
        yield f"GRANT SELECT ON {name} TO {roles};"
        return
    grant = f"GRANT SELECT ({{}}) ON {name} TO {roles};"
    yield grant.format(", ".join(columns if table.full else ["xmin", *columns]))
    if table.full:
        has_xmin = f"SELECT FROM pg_attribute WHERE attrelid = {literal(name)}::regclass AND attname = 'xmin'"
        yield _do(f"IF EXISTS ({has_xmin}) THEN {grant.format('xmin')} END IF;")


def _reading_all(schema: str, owner: str, roles: str) -> Iterator[str]:
    """SELECT on what `owner` has in a schema and will create there; not on what others have there."""
    yield f"GRANT USAGE ON SCHEMA {quoted(schema)} TO {roles};"
    yield f"ALTER DEFAULT PRIVILEGES FOR ROLE {quoted(owner)} IN SCHEMA {quoted(schema)} GRANT SELECT ON TABLES TO {roles};"
    owned = f"relnamespace = {literal(quoted(schema))}::regnamespace AND relowner = {literal(quoted(owner))}::regrole"
    yield _do(
        f"FOR one IN SELECT oid FROM pg_class WHERE {owned} AND relkind IN ('r', 'v') LOOP "
        f"EXECUTE 'GRANT SELECT ON ' || one || {literal(f' TO {roles}')}; END LOOP;",
        declared="one regclass;",
    )


def _script(place: str, roles: Iterable[str], statements: Iterable[str]) -> str:
    """One transaction: a mistake changes nothing."""
    missing = (
        f"IF to_regrole({literal(quoted(role))}) IS NULL THEN CREATE ROLE {quoted(role)} LOGIN; END IF;" for role in roles
    )
    lines = [
        f"-- Run it in {place}; it may be run repeatedly.",
        "-- It sets no passwords. In psql, \\password ROLE asks for one and sends its hash; keep it in a secret.",
        "BEGIN;",
        _do(" ".join(missing)),
        *statements,
        "COMMIT;",
    ]
    return "".join(f"{line}\n" for line in lines)


def _on_database(rights: str, roles: str) -> str:
    """Rights on the database in which the statement runs, whatever its name."""
    return _do(f"EXECUTE {literal(f'{rights} ON DATABASE ')} || quote_ident(current_database()) || {literal(f' {roles}')};")


def _do(body: str, declared: str = "") -> str:
    tag = "$$"
    while tag in body:  # a role or a table may be called so
        tag = f"$_{tag[1:]}"
    return f"DO {tag} {f'DECLARE {declared} ' if declared else ''}BEGIN {body} END {tag};"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(quoted, names))


def _checked(*roles: str) -> tuple[str, ...]:
    if len(set(roles)) < len(roles):
        raise UsageError(f"each role needs a name of its own, not '{printable(', '.join(roles))}'")
    for role in roles:
        if not 0 < len(role.encode()) <= NAME_BYTES_MAXIMUM:
            raise UsageError(f"'{printable(role)}' is not the name of a role: it must have 1 to {NAME_BYTES_MAXIMUM} bytes")
    return roles
