import pytest

from tests.models.keras_parity import keras_differences
from tests.models.parity import VARIANTS


@pytest.mark.service
def test_heads_equal_those_of_keras(tmp_path):
    found = keras_differences(tmp_path)
    assert list(found) == list(VARIANTS) and max(found.values()) < 1e-5, found
