"""What becomes of a source column that the contract does not know."""

from __future__ import annotations

from enum import StrEnum, unique


@unique
class Drift(StrEnum):
    """What a source table does with a new column, which is reported by name and type under every policy."""

    FREEZE = "freeze"  # the default: only the columns that the contract names leave the source
    CARRY = "carry"  # new columns are carried to the landing bucket as text until a contract names them
