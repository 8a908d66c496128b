"""Fakes of the queue and the object store, in memory and on the event loop's clock: deterministic, and made to be asserted on.

The conformance suite runs on them as on SQS and S3. `faults` makes the next calls of a method fail.
"""

from shared.testing.clock import EPOCH, loop_now
from shared.testing.faults import AnswerLost, Fault, Faults, Hangs, Partial, connection_reset, throttled
from shared.testing.object_store import FakeObjectStore, reference
from shared.testing.queue import FakeQueue, StoredMessage

__all__ = [
    "EPOCH",
    "AnswerLost",
    "FakeObjectStore",
    "FakeQueue",
    "Fault",
    "Faults",
    "Hangs",
    "Partial",
    "StoredMessage",
    "connection_reset",
    "loop_now",
    "reference",
    "throttled",
]
