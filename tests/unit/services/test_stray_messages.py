from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from contracts.messages import Message, decode
from services.ingestion.handler import handle as ingest
from services.loading.handler import handle as load
from services.remodelling.handler import handle as remodel
from shared.errors import PermanentError

EXAMPLES = Path(__file__).parents[1] / "contracts" / "messages"
NOTHING: Any = None  # a stray message is refused before anything is touched


def example(name: str) -> Message:
    return decode(json.dumps(json.loads((EXAMPLES / f"starlift.{name}.v1.json").read_text(encoding="utf-8"))))


@pytest.mark.parametrize("stray", ["batch_ingested", "batch_remodelled", "batch_loaded"])
async def test_ingestion_refuses_other_messages_than_its_commands(stray: str) -> None:
    with pytest.raises(
        PermanentError,
        match=rf"^ingestion handles starlift.ingest_source and starlift.look_up_keys, not 'starlift.{stray}.v\d+'; move ",
    ):
        await ingest(example(stray), NOTHING)


@pytest.mark.parametrize("stray", ["ingest_source", "batch_remodelled", "batch_loaded"])
async def test_remodelling_refuses_other_messages_than_its_event(stray: str) -> None:
    with pytest.raises(
        PermanentError, match=rf"^remodelling handles starlift.batch_ingested, not 'starlift.{stray}.v\d+'; move "
    ):
        await remodel(example(stray), NOTHING)


@pytest.mark.parametrize("stray", ["ingest_source", "batch_ingested", "batch_loaded"])
async def test_loading_refuses_other_messages_than_its_event(stray: str) -> None:
    with pytest.raises(
        PermanentError, match=rf"^loading handles starlift.batch_remodelled, not 'starlift.{stray}.v\d+'; move "
    ):
        await load(example(stray), NOTHING)
