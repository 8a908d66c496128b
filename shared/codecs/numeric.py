"""The codecs of numbers: exact, as whole numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, ClassVar

from shared.codecs.codec import ASCII_SPACE, Codec, LogicalType, narrowed
from shared.source_types import SourceType

_DECIMAL = re.compile(r"[+-]?\d+(\.\d*)?|NaN|-?Infinity", re.ASCII)
_NUMBER = re.compile(r"([+-]?)(?=\.?\d)(\d{0,1000})(?:\.(\d{0,1000}))?(?:[eE]([+-]?\d{1,3}))?", re.ASCII)
_DIGITS = frozenset("0123456789-")


def decimal_text(text: str) -> str:
    """A numeric as PostgreSQL spells it without zeros at the end: 7.50 and 7.5 are one key. Raises: ValueError."""
    if not _DECIMAL.fullmatch(text):
        raise ValueError(text)
    if not text[-1].isdigit() and not text.endswith("."):
        return text
    digits = f"{Decimal(text):f}"
    digits = digits.rstrip("0").rstrip(".") if "." in digits else digits
    return "0" if digits == "-0" else digits


def _whole_numbers(texts: Sequence[str]) -> list[int]:
    """The numbers of texts of digits and signs: int() takes more. Raises: ValueError."""
    if not _DIGITS.issuperset("".join(texts)):
        raise ValueError("unusual")
    return list(map(int, texts))


def unscaled(text: str, scale: int) -> int:
    """A number times 10^scale, if it has no more decimals. Raises: ValueError."""
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise ValueError(text)
    sign, whole, decimals, exponent = match.groups(default="")
    number, places = int(whole + decimals), scale - len(decimals) + int(exponent or 0)
    step: int = 10 ** abs(places)
    if places < 0 and number % step:
        raise ValueError(text)
    number = number * step if places >= 0 else number // step
    return -number if sign == "-" else number


class WholeNumber(Codec):
    """A smallint, integer or bigint."""

    bound: ClassVar[int]  # every value is below it, and none below its negative

    @property
    def key_form(self) -> str:
        return f"a whole number from {-self.bound} to {self.bound - 1}"

    def sought(self, value: Any) -> str:
        return str(value)

    def shown(self, value: Any) -> Any:
        return int(value)

    def delivered(self, text: str) -> Any:
        return self.parsed_key(text.strip(ASCII_SPACE))

    def delivered_all(self, texts: Sequence[str]) -> Sequence[Any]:
        numbers = _whole_numbers(texts)
        if numbers and not -self.bound <= min(numbers) <= max(numbers) < self.bound:
            raise OverflowError
        return numbers

    def parsed_key(self, text: str) -> int | str:
        if not re.fullmatch(r"[+-]?\d{1,19}", text, re.ASCII) or not -self.bound <= int(text) < self.bound:
            raise ValueError(text)
        return int(text)


class Integer(WholeNumber):
    """INTEGER."""

    accepted = re.compile(r"smallint|integer")
    file = "Int32"  # half of the bytes to compress; earlier builds wrote, and read, both
    bound = 2**31
    loaded_sql = "{0}::integer"

    def binary(self, values: Any) -> list[Any]:
        return [narrowed(values, ">i4")]


class Bigint(WholeNumber):
    """BIGINT."""

    accepted = re.compile(r"smallint|integer|bigint")
    bound = 2**63


class Numeric(Codec):
    """NUMERIC: exact, as the number of its last digits."""

    key_form = "a number, such as 7.5"
    accepted = re.compile(r"numeric(?:\((?P<precision>\d+),(?P<scale>-?\d+)\))?")
    logical = LogicalType("DECIMAL", "DECIMAL")

    def accepts(self, found: SourceType) -> bool:
        match = self.accepted.fullmatch(found.name)
        if match is None or match["precision"] is None:
            return match is not None
        precision, scale = int(match["precision"]), int(match["scale"])
        return scale <= self.type.scale and precision - scale <= self.type.precision - self.type.scale

    def read(self, value: str) -> str:
        return f"CASE WHEN {self._fits(value)} THEN ({value} * {10**self.type.scale})::bigint END"

    def defects(self, value: str) -> list[tuple[str, str]]:
        is_nan = f"{value} = 'NaN'::numeric"
        return [(is_nan, "NaN"), (f"NOT ({is_nan} OR {self._fits(value)})", f"not exactly a {self.type.sql}")]

    def _fits(self, value: str) -> str:
        """Whether a numeric, maybe of an unbounded column, is exactly a value of the type; NaN and infinity never are."""
        digits, scale = self.type.precision - self.type.scale, self.type.scale
        return f"(abs({value}) < {10**digits} AND {value} = round({value}, {scale}))"

    def loaded(self, value: str) -> str:
        return f"({value} * 1e-{self.type.scale}::numeric)::{self.type.sql}"

    def binary(self, values: Any) -> list[Any]:
        """Four counts, then digits of base 10,000, always as many of them: the server strips zeros.

        numeric_recv() in PostgreSQL's numeric.c reads it. A number with too many digits has a first digit that it rejects.
        """
        scale, magnitude = self.type.scale, abs(values)
        whole, rest = magnitude // 10**scale, magnitude % 10**scale
        before, behind = -(-max(self.type.precision - scale, 0) // 4), -(-scale // 4)
        digits = [whole // 10 ** (4 * place) % 10_000 for place in range(before - 1, -1, -1)]
        digits[:1] = [(whole // 10 ** (4 * (before - 1))).clip(max=32_767)] if before else []
        cuts = range(scale - 4, scale - 4 * behind - 1, -4)  # how many decimals stand behind each digit
        digits += [rest // 10**cut % 10_000 if cut >= 0 else rest % 10 ** (4 + cut) * 10**-cut for cut in cuts]
        counts = (0 * values + before + behind, 0 * values + before - 1, 0x4000 * (values < 0), 0 * values + scale)
        return [part.astype(">i2") for part in (*counts, *digits)]

    def key_text(self, value: str) -> str:
        return f"trim_scale({value})::text"

    def sought(self, value: Any) -> str:
        return f"{value}e-{self.type.scale}"  # a numeric, also where a column that refers to the key has more digits

    @property
    def delivered_form(self) -> str:
        digits, scale = self.type.precision - self.type.scale, self.type.scale
        return (
            f"a number of at most {digits} digits and {scale} decimals, such as 7.5"
            if scale > 0
            else f"a number of {digits} digits"
        )

    def delivered(self, text: str) -> Any:
        number = unscaled(text.strip(ASCII_SPACE), self.type.scale)
        if abs(number) >= 10**self.type.precision:
            raise ValueError(text)
        return number

    def delivered_all(self, texts: Sequence[str]) -> Sequence[Any]:
        """See Codec. The usual spelling has every decimal, and without the point it is the number that travels."""
        scale = self.type.scale
        if scale > 0:
            if any(text[-scale - 1 : -scale] != "." for text in texts):
                raise ValueError("unusual")
            texts = [text[: -scale - 1] + text[-scale:] for text in texts]
        numbers = _whole_numbers(texts)
        if scale < 0 or (numbers and max(map(abs, numbers)) >= 10**self.type.precision):
            raise OverflowError
        return numbers

    def parsed_key(self, text: str) -> int | str:
        return decimal_text(text)

    def shown(self, value: Any) -> Any:
        return f"{Decimal(int(value)).scaleb(-self.type.scale):f}"


def delivered_decimal(text: str, name: str) -> str:
    """A number in plain digits, if it has a place in the numeric type `name`. Raises: ValueError."""
    if not _NUMBER.fullmatch(text):
        raise ValueError(text)
    if bounds := re.search(r"\((\d+),(-?\d+)\)", name):
        precision, scale = int(bounds[1]), int(bounds[2])
        if abs(unscaled(text, scale)) >= 10**precision:
            raise ValueError(text)
    return decimal_text(f"{Decimal(text):f}")
