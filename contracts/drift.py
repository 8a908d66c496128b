"""What becomes of a source column that the contract does not know."""

from __future__ import annotations

from enum import StrEnum, unique


@unique
class Drift(StrEnum):
    """A policy of one source table. Every column that is new is reported, whatever the policy."""

    EVOLVE = "evolve"  # it is carried to the landing bucket, as text: there from its first day on, until a contract takes it up
    FREEZE = "freeze"  # it does not leave the source
