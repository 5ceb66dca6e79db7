import asyncio
import time
from uuid import UUID, uuid4


def identifier_at(seconds):
    """Return an identifier of version 7, as events have."""
    return UUID(int=int(seconds * 1000) << 80 | 7 << 76 | 2 << 62)


def test_events_before_the_start_of_the_server_count_as_evaluated():
    from infra.prefect.event_order import CausalOrdering

    order = CausalOrdering("test")
    assert asyncio.run(order.event_has_been_seen(identifier_at(time.time() - 3600)))
    assert not asyncio.run(order.event_has_been_seen(identifier_at(time.time() + 60)))
    assert not asyncio.run(order.event_has_been_seen(uuid4()))
