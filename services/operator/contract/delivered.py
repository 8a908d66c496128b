"""What commands for databases report about a source of data sets, which has no database."""

from __future__ import annotations

from collections.abc import Iterator

from contracts.contract import Contract
from contracts.datasets import DROP_ZONE, Contents, Paging
from contracts.tables import Dimension
from services.operator.errors import UsageError


def require_database(part: Contract, purpose: str) -> None:
    """Raises: UsageError if a source, of which this is the part, has none that would serve a `purpose`."""
    if part.is_delivered("".join(part.sources)):
        raise UsageError(f"{_described(part)}: there is no database {purpose}")


def notes_on_delivered(contract: Contract, *, is_url_unused: bool) -> Iterator[str]:
    """What there is to know about sources of data sets, whose part could be compared with no catalog."""
    parts = [contract.part(name) for name in contract.sources or [""] if contract.is_delivered(name)]
    for part in parts:
        yield f"{_described(part)}: nothing is compared here; each record is checked when it is delivered"
    for source in contract.source_tables:
        request = source.dataset.request if source.dataset is not None else None
        is_whole = source.dataset is not None and source.dataset.contents is Contents.SNAPSHOT
        if is_whole and request is not None and request.pages.kind in {Paging.OFFSET, Paging.PAGE}:
            yield (
                f"the pages of '{source.name}' are counted: a row that moves to a page that has been read looks deleted until "
                "the next fetch; use a cursor if the API has one"
            )
    for table in contract.warehouse_tables:
        if isinstance(table, Dimension) and table.versions is not None:
            dataset = contract.source_table(table.source).dataset
            if dataset is not None and dataset.contents is Contents.SNAPSHOT:
                yield f"each delivery of '{table.source}' adds a row to '{table.versions.name}' for each record, even unchanged"
    if parts and is_url_unused:
        yield "the source URL is not used: the main source, which STARLIFT_SOURCE_NAME names, has no database"


def _described(part: Contract) -> str:
    name = f"source '{part.sources[0]}'" if part.sources else "the source"
    request = next((table.dataset.request for table in part.source_tables if table.dataset is not None), None)
    if request is not None:
        return f"{name} is the API {request.api.url}"
    folders = ", ".join(f"{DROP_ZONE}{table.name}/" for table in part.source_tables)
    return f"{name} consists of files, which are put under {folders} of the landing bucket"
