"""The order in which a Prefect server evaluates events, for its setting PREFECT_SERVER_EVENTS_CAUSAL_ORDERING."""

import time
from uuid import UUID

from prefect.server.events.ordering import memory
from prefect.server.events.schemas.events import Event

_START_SECONDS = time.time()


class CausalOrdering(memory.CausalOrdering):
    """The order of the server, which also counts events before its start as evaluated.

    Otherwise the first change of the state of a young run after a restart of the server would wait for 15 minutes for
    the change before, which the server no longer remembers. Automations would react to a lost run that late.
    """

    async def event_has_been_seen(self, event: UUID | Event) -> bool:
        """Return whether an event was evaluated, by this process or by one before it."""
        number = event.id if isinstance(event, Event) else event
        return _seconds_of(number) < _START_SECONDS or await super().event_has_been_seen(event)


def _seconds_of(number: UUID) -> float:
    """Return the time in an identifier of version 7; later than all others if it contains none."""
    return (number.int >> 80) / 1000 if number.version == 7 else float("inf")
