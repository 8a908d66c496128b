from __future__ import annotations

from services.operator.proof.expected import CausesByAge
from services.operator.proof.row_comparison import Cause, Wait

RUN, COMPARISON = Cause(Wait.RUN), Cause(Wait.COMPARISON)
OLDEST, OLDER, YOUNGER = (Cause(Wait.BATCH, reason) for reason in ("oldest", "older", "younger"))


def test_the_next_run_is_expected_first_and_then_the_longest_missing_batches() -> None:
    """A date referenced by rows with several causes waits for the first of them."""
    by_age = CausesByAge(((90, RUN), (80, None), (70, YOUNGER), (60, None), (50, OLDER)), beyond=OLDEST, orphans=COMPARISON)
    assert by_age.causes == (RUN, OLDEST, OLDER, YOUNGER, COMPARISON)
    assert by_age.places == {None: "NULL", RUN: "0", OLDEST: "1", OLDER: "2", YOUNGER: "3", COMPARISON: "4"}


def test_a_cause_of_several_steps_is_listed_once() -> None:
    by_age = CausesByAge(((90, RUN), (70, Cause(Wait.BATCH)), (50, Cause(Wait.BATCH))), beyond=RUN)
    assert by_age.causes == (RUN, Cause(Wait.BATCH))
    assert CausesByAge().causes == ()
