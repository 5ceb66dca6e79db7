import pytest

from tests.models.parity import COMPARISONS


@pytest.mark.parametrize("name", COMPARISONS)
def test_the_product_equals_the_published_arithmetic(name):
    assert COMPARISONS[name]() < 1e-6
