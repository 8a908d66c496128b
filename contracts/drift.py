"""What becomes of a source column that the contract does not know."""

from __future__ import annotations

from enum import StrEnum, unique


@unique
class Drift(StrEnum):
    """A policy of one source table. A new column is reported by name and type, whatever the policy."""

    FREEZE = "freeze"  # the default: nothing that the contract does not name leaves the source
    CARRY = "carry"  # new columns travel to the landing bucket as text, from their first day until a contract takes them up
