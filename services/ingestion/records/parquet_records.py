"""Records of Parquet, read by a process of their own: damaged bytes can crash the reader, or make it ask for any memory."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from tempfile import TemporaryFile
from typing import BinaryIO, cast

from contracts.column_types import BYTEA
from contracts.tables import SourceTable
from services.ingestion.delivery import BadRecord, Record, UnreadableDeliveryError
from services.ingestion.records.json_records import json_line_pages
from services.ingestion.records.opened import Limits, Opened

REFUSED = 3  # exit code: what the process has written on stderr is the reason
_PROCESS = "services.ingestion.records.parquet_process"


def parquet_pages(file: BinaryIO, table: SourceTable, limits: Limits) -> Iterator[list[Record | BadRecord]]:
    """The records. Raises: UnreadableDeliveryError."""
    with TemporaryFile() as copy:
        try:
            number = file.fileno()
        except OSError:  # it is in memory
            shutil.copyfileobj(file, copy)
            copy.flush()
            number = copy.fileno()
        columns = {one.name: [one.type.is_whole_number, one.type == BYTEA] for one in table.stored_columns}
        command = [sys.executable, "-m", _PROCESS, str(number), json.dumps(columns)]
        with subprocess.Popen(  # noqa: S603 (our own program)
            command,
            pass_fds=[number],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C in a terminal must not look like a crash on bad data
        ) as process:
            try:
                yield from json_line_pages(Opened(cast("BinaryIO", process.stdout), limits), table)
                reason = cast("BinaryIO", process.stderr).read().decode(errors="replace")
                code = process.wait()
            finally:
                process.kill()
        if code == REFUSED:
            raise UnreadableDeliveryError(reason)
        if code:
            raise UnreadableDeliveryError(f"it is damaged: reading it as Parquet ended with code {code}; write it again")
