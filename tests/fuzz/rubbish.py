"""Rubbish for queues and objects, drawn from a seed; never a message that does harm by being valid."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from random import Random
from typing import Any
from uuid import UUID

from contracts.failure import FAILURE_ATTRIBUTE
from contracts.messages import MESSAGE_BYTES_MAXIMUM, NewerMessageError, UndecodableMessageError, decode
from shared.consumer.attempt import ATTEMPTS_ATTRIBUTE, DEFERRED_ATTRIBUTE, FAILING_ATTRIBUTE
from shared.wire_form import PACKED_ATTRIBUTE

RECORD = {
    "reason": "permanent",
    "error_type": "x",
    "message": "x",
    "fingerprint": "0" * 16,
    "attempts": 1,
    "first_failed_at": "2026-01-01T00:00:00Z",
    "last_failed_at": "2026-01-01T00:00:00Z",
    "source_queue": "x",
    "service": "x",
    "version": "x",
    "replays": 0,
}
SCALARS: list[Any] = [
    *(None, True, -1, 0, 2**31, 2**63, 10**30, 10**4000, 1e308, float("nan"), float("inf")),
    *("", " ", "\ud800", "\udfff\ud800", "\x00", "\u2028", "\ufeff", "x" * 100_000, "🙂" * 64, "[/bold]", "\x1b[2J", "../../x"),
    *("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2026-01-01", "1e999", "NaN", "'; --", [], {}, [[]]),
]
SPANS = [range(0x20, 0x7F), range(0x80, 0x800), range(0x800, 0xD800), range(0x10000, 0x110000)]


def text(draw: Random, length: int) -> str:
    """Characters that SQS accepts, of every length in UTF-8; a long text repeats itself."""
    piece = "".join(chr(draw.choice(draw.choice(SPANS))) for _ in range(min(length, 100)))
    return (piece * (length // 100 + 1))[:length]


def nested(draw: Random) -> str:
    """JSON, nested about as deep as it is read."""
    depth = draw.choice([50, 150, 320, 900, 990, 1_100, 50_000])
    before, behind = draw.choice([("[", "]"), ('{"data":', "}")])
    return f'{{"type":{before * depth}1{behind * depth}}}'


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value within a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, one in items:
        yield (*path, name)
        yield from places(one, (*path, name))


def with_other_value(draw: Random, document: str) -> str:
    """A JSON document with one value replaced, removed, or an unknown one added."""
    told = json.loads(document)
    *path, name = draw.choice(list(places(told)))
    parent = told
    for step in path:
        parent = parent[step]
    match draw.randrange(4):
        case 0:
            del parent[name]
        case 1 if isinstance(parent, dict):
            parent[draw.choice(["x", "\ud800", "x" * 100_000, "_"])] = draw.choice(SCALARS)
        case _:
            parent[name] = draw.choice(SCALARS)
    return json.dumps(told)


def with_other_bytes(draw: Random, document: str) -> str:
    """The text truncated, doubled, or with other characters somewhere."""
    at, length = draw.randrange(len(document)), draw.randrange(1, 40)
    return draw.choice(
        [
            document[:at],
            document + document[at:],
            document[:at] + text(draw, length) + document[at:],
            document[:at] + text(draw, length) + document[at + length :],
        ]
    )


def filling(draw: Random, document: str) -> str:
    """As many bytes as SQS accepts, or a few less."""
    room = MESSAGE_BYTES_MAXIMUM - draw.choice([0, 1, 30, 300, 600, 5_000])
    filler = draw.choice(["x", "€", "🙂", text(draw, 1_000)])
    filled = (document + filler * (room // len(filler.encode()) + 1)).encode()[:room].decode(errors="ignore")
    return filled + "x" * (room - len(filled.encode()))


def with_broken_reference(draw: Random, document: str) -> str:
    """A good message except for one object."""
    told = json.loads(document)
    references = [one for name in ("extracts", "tables") for one in told["data"].get(name, ())]
    if not references:
        return "{}"
    broken = [{"sha256": "0" * 64}, {"key": text(draw, 9)}, {"key": "x" * 2_000}, {"bucket": "b" * 20}, {"byte_count": 1}]
    draw.choice(references)["object"].update(draw.choice(broken))
    told["data"]["batch_id"] = str(UUID(int=draw.getrandbits(128)))  # of a batch that is loaded no object is read
    return json.dumps(told)


BODIES: list[Callable[[Random, str], str]] = [
    *(with_other_value, with_other_value, with_other_bytes, with_other_bytes, with_broken_reference, filling),
    lambda draw, _: nested(draw),
    lambda draw, _: text(draw, draw.randrange(1, 200)),
    lambda draw, _: json.dumps({"type": draw.choice(SCALARS)}),
    lambda draw, document: document.replace("v2", f"v{draw.choice([0, 9, 9_999, 10**9])}"),
]


def is_not_a_message(body: str) -> bool:
    """True if no service accepts it as a message: a valid one with another run number would rightly be processed."""
    try:
        decode(body)
    except (UndecodableMessageError, NewerMessageError):
        return True
    return False


def attributes(draw: Random, room: int) -> dict[str, Any]:
    """Message attributes as boto takes them: ours made up, others, too many."""
    record = draw.choice([with_other_value, with_other_bytes])(draw, json.dumps(RECORD))
    made = {
        FAILURE_ATTRIBUTE: record,
        ATTEMPTS_ATTRIBUTE: draw.choice(["9" * 9, "-1", "x", "1" * 5_000]),
        FAILING_ATTRIBUTE: draw.choice(["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "soon"]),
        DEFERRED_ATTRIBUTE: draw.choice(["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "soon"]),
        **{f"x{number}": text(draw, draw.choice([1, 100, 10_000])) for number in range(10)},
    }
    chosen = draw.sample(sorted(made), draw.choice([0, 1, 2, 4, 10]))
    found: dict[str, Any] = {}
    for name in chosen:
        room -= len(name) + 6 + len(made[name].encode())
        if room > 0:
            found[name] = {"DataType": "String", "StringValue": made[name]}
    if len(found) < 10 and room > 200_000 and draw.random() < 0.2:
        binary = draw.choice([b"no gzip", *map(gzip.compress, (b"\0", b"\xff", b"x" * 10**7))])
        found[PACKED_ATTRIBUTE] = {"DataType": "Binary", "BinaryValue": binary}
    return found


def garbage(draw: Random, document: bytes) -> bytes:
    """Other bytes for a stored document."""
    made: list[Callable[[], bytes]] = [
        lambda: b"",
        lambda: draw.randbytes(draw.randrange(1, 500)),
        lambda: document[: draw.randrange(len(document))],
        lambda: b"null",
        lambda: nested(draw).encode(),
        lambda: with_other_bytes(draw, document.decode()).encode(),
        lambda: b"\n".join(with_other_value(draw, line).encode() for line in document.decode().splitlines()),
    ]
    return draw.choice(made)()
