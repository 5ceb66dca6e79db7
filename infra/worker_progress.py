"""Progress of work on Dask workers: lines of text from a worker to the client that submitted the work."""

from queue import SimpleQueue
from typing import Any

from distributed import Client, get_worker

# The scheduler forwards events of a topic to all clients that subscribed to it, and keeps the last thousand.
_TOPIC = "affwild2-progress"


def send_progress(client: str, key: str, line: str) -> None:
    """Send a line about the task ``key`` from its worker to the client with the id ``client``."""
    get_worker().log_event(_TOPIC, {"client": client, "key": key, "line": line})


def receive_progress(client: Client, queue: SimpleQueue[Any]) -> None:
    """Put (key, line) into the queue for every line, until this is called with another queue."""

    def handle(event: tuple[float, dict[str, Any]]) -> None:
        _, message = event
        if message["client"] == client.id:
            queue.put((message["key"], message["line"]))

    client.subscribe_topic(_TOPIC, handle)
