from pathlib import Path

import pytest

from data_contracts.errors import InputError
from data_contracts.store.manifest import Failure
from data_contracts.store.store import Store
from tasks.fit.import_labels import imported_labels, plan_import_labels

ANNOTATIONS = Path(__file__).parents[2] / "data" / "store_34a2ed4" / "data" / "Third ABAW Annotations"


def test_a_failed_import_is_reported_with_its_cause(tmp_path):
    store = Store(tmp_path / "store")
    units = plan_import_labels(ANNOTATIONS / "VA_Estimation_Challenge", task="va", sets=("train", "validation"))
    store.note_failure(units[0].key, Failure(units[0].fingerprint, "train01.txt: line 3: expected two numbers"))
    with pytest.raises(InputError, match=r"labels of va train, .* import failed: train01.txt: line 3: expected two"):
        imported_labels(store, units)
