"""Asking for the life of a row of a pipeline's warehouse."""

from __future__ import annotations

from services.operator.system import System
from services.operator.trace.life import Life, read_life
from services.operator.trace.render import lines_of
from tests.pipeline import Pipeline
from tests.unit.services.operator.scene import SETTINGS


async def life(pipeline: Pipeline, table: str, *key: str) -> Life:
    """As the command reads it."""
    system = System(SETTINGS, pipeline.contract, {}, {}, {}, pipeline.objects, pipeline.source, pipeline.warehouse)
    return await read_life(system, table, key)


async def told(pipeline: Pipeline, table: str, *key: str) -> str:
    """As the command tells it."""
    return "\n".join(lines_of(await life(pipeline, table, *key)))
