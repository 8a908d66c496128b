"""The form of a message on the wire: a packed body is unpacked unchanged, and the sender's attributes are kept."""

from __future__ import annotations

import gzip
from typing import Any

import pytest

from contracts.messages import MESSAGE_BYTES_MAXIMUM
from shared.wire_form import PACKED_ATTRIBUTE, attributes_beside, packed, packed_byte_count, unpacked


def received(body: str, attributes: dict[str, Any]) -> Any:
    return {"Body": body, "MessageAttributes": attributes}


@pytest.mark.parametrize("size", [1, MESSAGE_BYTES_MAXIMUM - 5, MESSAGE_BYTES_MAXIMUM])
def test_a_packed_message_fits_and_is_unpacked_unchanged(size: int) -> None:
    body, attributes = "x" * size, {"starlift.failure": "why"}
    wire_body, wired = packed(body, attributes)
    assert (PACKED_ATTRIBUTE in wired) == (size > MESSAGE_BYTES_MAXIMUM // 2)
    assert packed_byte_count(body, attributes) <= MESSAGE_BYTES_MAXIMUM
    assert unpacked(received(wire_body, dict(wired))) == body


@pytest.mark.parametrize(
    "attribute",
    [
        {"DataType": "String", "StringValue": "x"},
        {"DataType": "Binary", "BinaryValue": b"no gzip"},
        {"DataType": "Binary", "BinaryValue": gzip.compress(b"cut short")[:-3]},
        {"DataType": "Binary", "BinaryValue": gzip.compress(b"\xff")},
        {"DataType": "Binary", "BinaryValue": gzip.compress(b"a control character: \0")},
        {"DataType": "Binary", "BinaryValue": gzip.compress(b"x" * 10 * MESSAGE_BYTES_MAXIMUM)},
    ],
)
def test_a_forged_attribute_is_not_read_as_a_body(attribute: dict[str, Any]) -> None:
    assert unpacked(received("the body", {PACKED_ATTRIBUTE: attribute})) == "the body"


def test_a_copy_keeps_our_attributes_and_as_many_of_the_sender_s_as_fit() -> None:
    given = {f"x{number}": "x" for number in range(10)} | {"ours": "theirs", "large": "x" * MESSAGE_BYTES_MAXIMUM}
    kept = attributes_beside("body", {"ours": "ours"}, given)
    assert kept["ours"] == "ours"
    assert len(kept) == 9
    assert "large" not in kept
    assert attributes_beside("x" * MESSAGE_BYTES_MAXIMUM, {"ours": "ours"}, given) == {"ours": "ours"}
