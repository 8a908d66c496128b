"""What a person means by a name they have typed."""

from __future__ import annotations

from contracts.contract import Contract
from contracts.tables import ContractError, WarehouseTable
from services.operator.errors import UsageError


def table_named(contract: Contract, name: str) -> WarehouseTable:
    """The warehouse table that a person means. Raises: UsageError."""
    try:
        return contract.warehouse_table(name)
    except ContractError as error:
        known = ", ".join(table.name for table in contract.warehouse_tables)
        raise UsageError(f"{error}; it has {known}") from error
