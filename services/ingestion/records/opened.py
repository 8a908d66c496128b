"""The bytes of a delivery: expanded, bounded, and decoded."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from contracts.datasets import RecordForm
from contracts.tables import SourceTable
from services.ingestion.delivery import UnreadableDeliveryError
from shared.codecs.codec import MIB

_BYTE_ORDER_MARK = "\ufeff"
_SHOWN = 1_000  # characters of a bad record


@dataclass(frozen=True, slots=True)
class Limits:
    """What a delivery may take of memory, disk and time."""

    byte_count: int = 64 * 1024 * MIB  # expanded
    ratio: int = 300  # of expanded bytes to compressed ones, of a delivery of more than `ratio_from` expanded bytes
    ratio_from: int = 64 * MIB
    record_bytes: int = 4 * MIB  # of one record
    page_bytes: int = 8 * MIB  # about, of the records that are read at a time
    page_records: int = 10_000
    columns: int = 1_600  # as PostgreSQL's tables


class Opened(io.RawIOBase):
    """A delivery's bytes, expanded if they are compressed. Reading raises UnreadableDeliveryError at a limit."""

    def __init__(self, file: BinaryIO, limits: Limits) -> None:
        self.limits, self._file = limits, file
        self.byte_count = self.page_start = 0
        first = file.read(4)
        file.seek(-len(first), io.SEEK_CUR)
        self._expanded: BinaryIO = file
        if first.startswith(b"\x1f\x8b"):
            self._expanded = gzip.GzipFile(fileobj=file)  # type: ignore[assignment]

    def readable(self) -> bool:
        """See IOBase."""
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        """See RawIOBase."""
        try:
            chunk = self._expanded.read(len(buffer))
        except (OSError, EOFError, zlib.error) as error:
            raise UnreadableDeliveryError(f"its compressed bytes are damaged or cut off ({error})") from error
        buffer[: len(chunk)] = chunk
        self.byte_count += len(chunk)
        self._check()
        return len(chunk)

    def _check(self) -> None:
        limits, count = self.limits, self.byte_count
        if count > limits.byte_count:
            raise UnreadableDeliveryError(f"it has more than {limits.byte_count // MIB} MiB; deliver it in parts")
        if count - self.page_start > limits.page_bytes + limits.record_bytes:
            raise UnreadableDeliveryError(
                f"it has a record of more than {limits.record_bytes // MIB} MiB, or a quote that is never closed, after byte "
                f"{self.page_start}"
            )
        if self._expanded is not self._file and count > limits.ratio_from and count > limits.ratio * self._file.tell():
            raise UnreadableDeliveryError(f"it expands to more than {limits.ratio} times its compressed bytes")

    def is_page_full(self, records: int) -> bool:
        """Whether so many records, and the bytes read for them, are enough for a page."""
        return records >= self.limits.page_records or self.byte_count - self.page_start >= self.limits.page_bytes

    def text(self, encoding: str) -> io.TextIOWrapper:
        """The bytes as text, with its line ends as they are. Raises: UnreadableDeliveryError for an unknown encoding."""
        try:
            return io.TextIOWrapper(self, encoding, newline="")  # type: ignore[arg-type]  # it has no `name`
        except LookupError as error:
            raise UnreadableDeliveryError(f"its encoding '{encoding}' in the contract is unknown") from error

    def lines(self, encoding: str) -> Iterator[str]:
        """Its lines, with their ends, without a byte order mark. Raises: UnreadableDeliveryError."""
        text = self.text(encoding)
        try:
            yield next(text, "").removeprefix(_BYTE_ORDER_MARK)
            yield from text
        except UnicodeError as error:
            at = self.byte_count - len(error.object) + error.start if isinstance(error, UnicodeDecodeError) else None
            raise UnreadableDeliveryError(
                f"its bytes are not text in {encoding}"
                + (f", at byte {at}" if at is not None else "")
                + "; correct it, or its encoding in the contract"
            ) from error


def form_of(table: SourceTable) -> RecordForm:
    """How the records of a data set are written. Raises: TypeError for a table of a database."""
    if table.dataset is None:
        raise TypeError(f"'{table.name}' is not a data set")
    return table.dataset.form


def beginning(text: str) -> str:
    """As much of a bad record as is kept."""
    return text[:_SHOWN]
