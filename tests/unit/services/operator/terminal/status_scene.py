"""A status of made-up answers, and its output."""

from __future__ import annotations

import io
import json
from datetime import timedelta
from typing import Any

from rich.console import Console

from services.operator.progress import Progress
from services.operator.status.report import Answers, RowCount, report_of
from services.operator.terminal.status import show_status
from shared.queue import Depth
from tests.unit.services.operator.scene import BEGAN, Scene, checkpoint

EMPTY = Depth(visible=0, in_flight=0, delayed=0)
NOTHING = Progress(consistent_through=None, missing=(), checkpoint=None)


async def loaded_progress() -> Progress:
    manifest = await Scene().end_run(7, second=1)
    return Progress(manifest, (), checkpoint(7, second=1))


def shown(answers: Answers) -> str:
    """The output on a narrow terminal, or through a pipe."""
    console = Console(file=io.StringIO(), width=80, record=True)
    show_status(console, report_of(answers))
    return console.export_text()


def as_json(answers: Answers) -> dict[str, Any]:
    """The output of `--json`."""
    return dict(json.loads(report_of(answers).model_dump_json()))


def words(text: str, first: str) -> list[str]:
    """The cells of the row that begins with `first`."""
    (row,) = [line for line in text.splitlines() if line.strip("│ ").startswith(first)]
    return [cell.strip() for cell in row.strip("│ ").split("│")]


def status(progress: Progress = NOTHING, **depths: Depth) -> Answers:
    queues = {"ingestion": EMPTY, "remodelling": EMPTY, "loading": EMPTY}
    return Answers(
        at=BEGAN + timedelta(seconds=3.25),
        queues=queues | {name: depth for name, depth in depths.items() if name in queues},
        dead_letters=queues | {name.removesuffix("_dlq"): depth for name, depth in depths.items() if name.endswith("_dlq")},
        progress=progress,
        proof=None,
        rows={
            "dim_date": RowCount(1234),
            "dim_staff": RowCount(20, is_estimate=True),
            "fact_payment": RowCount(None, exists=False),
        },
        fresh={"dim_date": BEGAN, "dim_staff": None, "fact_payment": None},
        quarantined=0,
    )
