"""The consumer that every service runs: deliveries in, one outcome each, at least once."""

from shared.consumer.consumer import Consumer
from shared.consumer.rules import Handler, Probe, Rules

__all__ = ["Consumer", "Handler", "Probe", "Rules"]
