from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.failure import FAILURE_TEXT_BYTES_MAXIMUM, FailureReason, FailureRecord, normalised
from contracts.messages import decode
from shared.consumer.attempt import read_attempt
from shared.consumer.dead_letter import dead_letter_attributes, fingerprint
from shared.errors import PermanentError
from shared.outcome import DeadLetter
from shared.queue import Delivery
from shared.testing import EPOCH
from tests.unit.shared.consumer.scene import RULES


@given(text=st.text(st.characters(exclude_categories=["Cs"]), min_size=200))
@settings(deadline=None)
def test_a_failure_record_holds_any_text_cut_and_escaped_for_sqs(text: str) -> None:
    attempt = read_attempt(Delivery("id", "body", "receipt", 1, EPOCH, EPOCH), EPOCH)
    outcome = DeadLetter(FailureReason.PERMANENT, PermanentError(text))
    (attribute,) = dead_letter_attributes(attempt, outcome, rules=RULES, queue="loading", now=EPOCH).values()
    message = FailureRecord.model_validate_json(attribute).message
    assert attribute.isascii()
    assert min(attribute) >= " "
    assert len(message.encode()) <= FAILURE_TEXT_BYTES_MAXIMUM
    assert text.startswith(message)


def caught(body: str) -> Exception:
    try:
        decode(body)
    except ValueError as error:
        return error
    raise AssertionError(body)


def test_failures_share_a_fingerprint_exactly_when_they_share_a_cause() -> None:
    assert fingerprint(caught("1")) == fingerprint(caught("2"))
    assert fingerprint(caught('{"type": "x"}')) == fingerprint(caught('{"type": "starlift.y.v1"}'))
    assert fingerprint(caught("1")) != fingerprint(caught('{"type": "x"}'))
    assert fingerprint(ValueError("1")) != fingerprint(TypeError("1"))
    assert fingerprint(PermanentError("run 7 has no manifest")) == fingerprint(PermanentError("run 8 has no manifest"))
    assert fingerprint(PermanentError("run 7 has no manifest")) != fingerprint(PermanentError("run 7 has no snapshot"))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("table 'staff' lacks column 'email'", "table 'sales order' lacks column 'id'"),
        ("'a/b.parquet' has 17 bytes with sha256 " + "ab" * 32, "'c' has 1,024 bytes with sha256 " + "0f" * 32),
        ("batch 5e1f1c1e-57a7-5c4e-8a3a-0d1f7a5e9b21 is gone", "batch 00000000-57a7-5c4e-8a3a-0d1f7a5e9b21 is gone"),
        (
            "can't read 'x', and isn't cut off here: 'start of a na",
            "can't read 'y', and isn't cut off here: 'another",
        ),
        ("unexpected KeyError in services.x, line 12", "unexpected KeyError in services.x, line 340"),
        ("until 2026-11-01 09:30:00", "until 2027-01-31 23:59:59.5"),
    ],
)
def test_error_texts_are_compared_without_names_ids_hashes_and_numbers(one: str, other: str) -> None:
    assert normalised(one) == normalised(other)
    assert normalised(one) != normalised(f"not {other}")
