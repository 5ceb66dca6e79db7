"""The bundle that marks a store as simulated and holds its best attainable scores."""

from data_contracts.store.bundles import find_bundle
from data_contracts.store.details import SimulationDetails
from data_contracts.store.store import Store
from data_contracts.vocabulary import SetName, TaskName

SIMULATION_FOLDER = "simulation"


def find_simulation(store: Store) -> SimulationDetails | None:
    """Return what ``simulate`` wrote about the data in a store; None if it did not write the store."""
    bundle = find_bundle(store, SIMULATION_FOLDER)
    return SimulationDetails.of(bundle) if bundle else None


def attainable_score(store: Store, task: TaskName, metric: str, *, set_name: SetName = "validation") -> float | None:
    """Return the best attainable score of a task by a metric (``tasks.simulate.attainable``).

    None if the store holds no simulation, or the metric is unknown.
    """
    found = find_simulation(store)
    return found.attainable.get(task, {}).get(set_name, {}).get(metric) if found else None
