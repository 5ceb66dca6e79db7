"""The bundle that marks a store as simulated and holds its best attainable scores."""

from dataclasses import dataclass

from data_contracts.details.records import Details
from data_contracts.store.bundles import find_bundle
from data_contracts.store.store import Store
from data_contracts.vocabulary import TaskName

SIMULATION_FOLDER = "simulation"


@dataclass(frozen=True, kw_only=True)
class SimulationDetails(Details):
    """``simulation``: how the data in the store was simulated, and the best scores that any prediction can reach.

    Attributes:
        scale, seed: of the simulation.
        subjects, frames: numbers of them; frames of a video with two persons count twice.
        attainable: task -> set -> metric -> score of the best decisions given the latent state of every frame.
    """

    scale: float
    seed: int
    subjects: int
    frames: int
    attainable: dict[str, dict[str, dict[str, float]]]


def find_simulation(store: Store) -> SimulationDetails | None:
    """Return what ``simulate`` wrote about the data in a store; None if it did not write the store."""
    bundle = find_bundle(store, SIMULATION_FOLDER)
    return SimulationDetails.of(bundle) if bundle else None


def attainable_score(store: Store, task: TaskName, metric: str) -> float | None:
    """Return the best attainable validation score of a task by a metric (``tasks.simulate.attainable``).

    None if the store holds no simulation, or the metric is unknown.
    """
    found = find_simulation(store)
    return found.attainable.get(task, {}).get("validation", {}).get(metric) if found else None
