"""A message as it travels over SQS, which counts a message's attributes among its bytes.

A body that leaves no room for its attributes travels gzipped, as a binary attribute. UTF-8 never uses 13 of the 256 bytes, and
SQS refuses 29 control characters: gzip makes room for more than any record of ours in every body that SQS takes.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from contracts.messages import MESSAGE_BYTES_MAXIMUM

if TYPE_CHECKING:
    from types_aiobotocore_sqs.type_defs import MessageAttributeValueTypeDef, MessageTypeDef

PACKED_ATTRIBUTE = "starlift.body"
_PACKED_BODY = f"the body is in attribute {PACKED_ATTRIBUTE}, gzipped"
_ATTRIBUTES_MAXIMUM = 10  # SQS, of one message
# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html
_UNSENDABLE = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def byte_count(body: str, attributes: Mapping[str, str]) -> int:
    """The bytes that SQS counts: those of the body, and of the name, type and value of each attribute."""
    return _length(body) + sum(_length(f"{name}String{value}") for name, value in attributes.items())


def packed_byte_count(body: str, attributes: Mapping[str, str]) -> int:
    """The bytes of the message as it travels."""
    plain = byte_count(body, attributes)
    if plain <= MESSAGE_BYTES_MAXIMUM:
        return plain
    return byte_count(_PACKED_BODY, attributes) + len(f"{PACKED_ATTRIBUTE}Binary") + len(_gzipped(body))


def attributes_beside(body: str, ours: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    """The attributes of a copy of a message: `ours`, and those it was `given`, smallest first, as far as there is room."""
    kept = dict(ours)
    for name, value in sorted(given.items(), key=lambda attribute: len(attribute[1])):
        more = {name: value, **kept}
        if len(more) < _ATTRIBUTES_MAXIMUM and byte_count(body, more) <= MESSAGE_BYTES_MAXIMUM:  # one is left for the body
            kept = more
    return kept


def packed(body: str, attributes: Mapping[str, str]) -> tuple[str, dict[str, MessageAttributeValueTypeDef]]:
    """Body and attributes as they travel."""
    as_sent: dict[str, MessageAttributeValueTypeDef] = {
        name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()
    }
    if byte_count(body, attributes) <= MESSAGE_BYTES_MAXIMUM:
        return body, as_sent
    return _PACKED_BODY, {**as_sent, PACKED_ATTRIBUTE: {"DataType": "Binary", "BinaryValue": _gzipped(body)}}


def unpacked(message: MessageTypeDef) -> str:
    """The body as it was sent. An attribute without a valid body, or with one that SQS would refuse, is hand-made: ignored."""
    attribute = message.get("MessageAttributes", {}).get(PACKED_ATTRIBUTE)
    if attribute is None or "BinaryValue" not in attribute:
        return message["Body"]
    opener = zlib.decompressobj(wbits=31)
    try:
        body = opener.decompress(attribute["BinaryValue"], MESSAGE_BYTES_MAXIMUM).decode()
    except (zlib.error, ValueError):
        return message["Body"]
    return body if opener.eof and _UNSENDABLE.search(body) is None else message["Body"]


def _gzipped(body: str) -> bytes:
    return gzip.compress(body.encode(errors="surrogatepass"), mtime=0)


def _length(text: str) -> int:
    return len(text.encode(errors="surrogatepass"))
