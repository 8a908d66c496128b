from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from shared.consumer.backoff import probe_delay, retry_delay

ANY_SEED = st.integers(0, 2**32)


@given(attempt=st.integers(1, 10_000), seed=ANY_SEED)
@settings(deadline=None)
def test_the_backoff_of_an_attempt_is_half_to_all_of_a_doubling_span(attempt: int, seed: int) -> None:
    longest = min(900, 5 * 2 ** (attempt - 1))
    assert longest / 2 <= retry_delay(attempt, Random(seed)).total_seconds() <= longest  # noqa: S311 - a seed's draws


@given(failures=st.integers(1, 10_000), seed=ANY_SEED)
@settings(deadline=None)
def test_the_backoff_of_a_probe_is_zero_to_all_of_a_doubling_span(failures: int, seed: int) -> None:
    assert 0 <= probe_delay(failures, Random(seed)).total_seconds() <= min(30, 2 ** (failures - 1))  # noqa: S311 - a seed's draws
