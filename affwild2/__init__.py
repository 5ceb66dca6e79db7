"""Read stores and predictions, plot timelines and score videos, in notebooks and scripts.

    >>> import affwild2
    >>> predictions = affwild2.score("clip.mp4", out="predictions")
    >>> predictions.load(to="pandas")
    >>> predictions.plot("clip")
    >>> store = affwild2.open_store("STORE")
    >>> store.outputs("va-default", subjects="clip", to="polars")

Nothing here changes a store, except ``score``. The columns of all tables are described in docs/data_contracts.md, and
in the metadata of their fields. Wrong names raise ``InputError``, whose message lists the names that exist.
"""

from affwild2.predictions import Predictions, open_predictions
from affwild2.scoring import score
from affwild2.store_reader import StoreReader, open_store
from affwild2.tables import Format
from affwild2.timeline import Timeline
from data_contracts.errors import InputError
from data_contracts.vocabulary import ACTION_UNITS, EXPRESSIONS

__all__ = [
    "ACTION_UNITS",
    "EXPRESSIONS",
    "Format",
    "InputError",
    "Predictions",
    "StoreReader",
    "Timeline",
    "open_predictions",
    "open_store",
    "score",
]
