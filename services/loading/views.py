"""Creating a view again with everything that PostgreSQL drops along with the old one. Pure SQL text."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from contracts.contract import Contract
from contracts.tables import Fact
from services.loading.schema import create_current_view, current_view
from services.loading.star import FoundView
from shared.sql import literal, quoted


def is_extension(view: FoundView, wanted: FoundView) -> bool:
    """Whether CREATE OR REPLACE can turn `view` into the wanted one: it can only add columns at the end."""
    return wanted.columns[: len(view.columns)] == view.columns


def recreate(
    contract: Contract, table: Fact, view: FoundView, columns: Collection[str], between: Sequence[str] = ()
) -> list[str]:
    """Drop a fact's view and create it again after the statements `between`, with its owner, grants, options and comments.

    `columns` are the columns it will have. Grants made by others become the owner's.
    """
    name = current_view(contract, table)
    return [
        f"DROP VIEW {name}",
        *between,
        create_current_view(contract, table, view.options),
        *_grants(view, name, columns),
        *_comments(view, name, columns),
        *([] if view.is_own else [f"ALTER VIEW {name} OWNER TO {quoted(view.owner)}"]),
    ]


def _grants(view: FoundView, name: str, columns: Collection[str]) -> Iterator[str]:
    """The grants, after those that ALTER DEFAULT PRIVILEGES gives a new view are revoked."""
    for role in view.granted_by_default:
        yield f"REVOKE ALL ON {name} FROM {_role(role)}"
    for grant in view.grants:
        if grant.column is None or grant.column in columns:
            column = "" if grant.column is None else f" ({quoted(grant.column)})"
            option = " WITH GRANT OPTION" if grant.may_grant else ""
            yield f"GRANT {grant.privilege}{column} ON {name} TO {_role(grant.role)}{option}"


def _comments(view: FoundView, name: str, columns: Collection[str]) -> Iterator[str]:
    if view.comment is not None:
        yield f"COMMENT ON VIEW {name} IS {literal(view.comment)}"
    for column, comment in view.column_comments.items():
        if column in columns:
            yield f"COMMENT ON COLUMN {name}.{quoted(column)} IS {literal(comment)}"


def _role(name: str | None) -> str:
    return "PUBLIC" if name is None else quoted(name)
