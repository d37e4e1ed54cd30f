"""Events between services: told in the transaction of a change, relayed in the order of commits, handled once each.

What happens to an event: `Events.tell` writes it into the outbox of its service's schema (outbox.py); a relay under a
lease takes it to the bus as soon as no earlier transaction is open (relay.py); a reader of the bus hands it to the
consumers that subscribed (direct.py, kafka_bus.py), where each has its effect in a transaction with a row that says so
(consumer.py). One that a consumer cannot handle becomes a dead letter, which can be tried again (attempts.py).
"""

from hunmin_kit.events.consumer import Subscription
from hunmin_kit.events.hearing import Hearing
from hunmin_kit.events.service import Events

__all__ = ["Events", "Hearing", "Subscription"]
