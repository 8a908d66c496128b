"""The bytes of a delivery: expanded, bounded, and decoded."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO

from contracts.datasets import RecordForm
from contracts.tables import SourceTable
from services.ingestion.delivery import UnreadableDeliveryError
from shared.codecs.codec import MIB

BYTE_ORDER_MARK = "\ufeff"
_SHOWN = 1_000  # characters of a bad record


@dataclass(frozen=True, slots=True)
class Limits:
    """What a delivery may take of memory, disk and time."""

    byte_count: int = 64 * 1024 * MIB  # expanded
    ratio: int = 300  # of expanded bytes to compressed ones, of a delivery of more than `ratio_from` expanded bytes
    ratio_from: int = 64 * MIB
    record_bytes: int = 4 * MIB  # of one record
    page_bytes: int = (
        4 * MIB
    )  # about, of the records that are read at a time: as Python's objects they are up to 30 times as large
    page_records: int = 10_000
    page_fields: int = 400_000  # of CSV, where a field may be a single comma
    columns: int = 1_600  # as PostgreSQL's tables


# What people deliver in place of what the contract says, by its first bytes.
_FOREIGN = {b"PK\x03\x04": "a ZIP archive or an Excel file", b"BZh": "compressed by bzip2", b"\xfd7zXZ": "compressed by xz"}
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_READ = 64 * 1024
# What is expanded at once. zstd makes up to 128 KiB of four bytes.
_ZSTD_READ = 256
_ZSTD_WINDOW = 32 * MIB  # the memory that a frame may ask for: levels up to 20 ask for less


class Opened(io.RawIOBase):
    """A delivery's bytes, expanded if they are compressed. Reading raises UnreadableDeliveryError at a limit."""

    name = "delivery"  # which the types of TextIOWrapper ask for

    def __init__(self, file: BinaryIO, limits: Limits) -> None:
        """Recognize the compression."""
        self.limits, self._file = limits, file
        self.byte_count = self.page_start = 0
        first = file.read(6)
        for magic, what in _FOREIGN.items():
            if first.startswith(magic):
                raise UnreadableDeliveryError(f"it is {what}: deliver the file as it is, or compressed by gzip or zstd")
        self._is_compressed = first.startswith((_GZIP, _ZSTD))
        self._left = memoryview(b"" if self._is_compressed else first)
        if self._is_compressed:
            file.seek(-len(first), io.SEEK_CUR)
        if first.startswith(_ZSTD):
            self._chunks = _zstd_chunks(file)
        else:
            plain = gzip.GzipFile(fileobj=file, mode="rb") if self._is_compressed else file
            self._chunks = iter(partial(plain.read, _READ), b"")

    def readable(self) -> bool:
        """See IOBase."""
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        """See RawIOBase."""
        try:
            while not self._left and (chunk := next(self._chunks, None)) is not None:
                self._left = memoryview(chunk)
        except (OSError, EOFError, zlib.error) as error:
            raise UnreadableDeliveryError(f"its compressed bytes are damaged or cut off: {error}; deliver it again") from error
        count = min(len(buffer), len(self._left))
        buffer[:count], self._left = self._left[:count], self._left[count:]
        self.byte_count += count
        self._check()
        return count

    def _check(self) -> None:
        limits, count = self.limits, self.byte_count
        if count > limits.byte_count:
            raise UnreadableDeliveryError(f"it has more than {limits.byte_count // MIB} MiB; deliver increments in parts")
        if count - self.page_start > limits.page_bytes + limits.record_bytes:
            raise UnreadableDeliveryError(
                f"it has a record of more than {limits.record_bytes // MIB} MiB, or a quote that is never closed, after byte "
                f"{self.page_start}; correct it, and deliver it again"
            )
        if self._is_compressed and count > limits.ratio_from and count > limits.ratio * self._file.tell():
            raise UnreadableDeliveryError(
                f"it expands to more than {limits.ratio} times its compressed bytes; deliver it without compression"
            )

    def begin_page(self) -> int:
        """Count the bytes of the next page from here, and return at how many of all it is full."""
        self.page_start = self.byte_count
        return self.page_start + self.limits.page_bytes

    @contextmanager
    def text(self, encoding: str) -> Iterator[io.TextIOWrapper]:
        """The bytes as text, with its line ends as they are. Raises: UnreadableDeliveryError."""
        try:
            text: io.TextIOWrapper = io.TextIOWrapper(self, encoding, newline="")
        except LookupError as error:
            raise UnreadableDeliveryError(f"its encoding '{encoding}' is unknown; correct it in the contract") from error
        try:
            yield text
        except UnicodeError as error:
            at = (
                f" at byte {self.byte_count - len(error.object) + error.start}" if isinstance(error, UnicodeDecodeError) else ""
            )
            raise UnreadableDeliveryError(
                f"its bytes are not text in {encoding}{at}; correct it, or its encoding in the contract"
            ) from error

    def lines(self, encoding: str) -> Iterator[str]:
        """Its lines, with their ends, without a byte order mark. Raises: UnreadableDeliveryError."""
        with self.text(encoding) as text:
            yield next(text, "").removeprefix(BYTE_ORDER_MARK)
            yield from text


def _zstd_chunks(file: BinaryIO) -> Iterator[bytes]:
    """What frames of zstd hold. The library's own reader takes a frame that is cut off for a whole one."""
    import zstandard  # noqa: PLC0415 (few deliveries need it)

    frame, part = None, b""
    while part := part or file.read(_ZSTD_READ):
        frame = frame or zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj()
        try:
            yield frame.decompress(part)
        except zstandard.ZstdError as error:
            raise OSError(error) from error
        part = frame.unused_data
        frame = None if frame.eof else frame
    if frame is not None:
        raise EOFError("the last frame does not end")


def form_of(table: SourceTable) -> RecordForm:
    """How the records of a data set are written. Raises: TypeError for a table of a database."""
    if table.dataset is None:
        raise TypeError(f"'{table.name}' is not a data set")
    return table.dataset.form


def beginning(text: str) -> str:
    """As much of a bad record as is kept; a half of a surrogate pair, which JSON can spell, is not text that can be stored."""
    return text[:_SHOWN].encode(errors="replace").decode()
