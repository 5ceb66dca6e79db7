import numpy as np

from models.decisions.radix_sort import bits_of_key, rising_key, sort_keys

RANDOM = np.random.default_rng(0)


def test_keys_rise_with_the_values_and_turn_back():
    values = np.sort(RANDOM.normal(0, 1e3, 500).astype("f4"))
    values = np.concatenate([[-np.inf], values, [np.inf]]).astype("f4")
    bits = values.view(np.uint32)
    keys = [rising_key(value) for value in bits]
    assert all(a < b or x == y for a, b, x, y in zip(keys, keys[1:], values, values[1:], strict=False))
    assert [int(bits_of_key(np.uint32(key))) for key in keys] == bits.tolist()


def test_sorts_by_the_bits_asked_for_and_keeps_the_order_of_equals():
    keys = RANDOM.integers(0, 1 << 33, 3000, dtype=np.uint64)
    assert (sort_keys(keys.copy(), np.empty_like(keys), 0) == np.sort(keys)).all()
    high = (RANDOM.integers(0, 50, 3000, dtype=np.uint64) << np.uint64(32)) | np.arange(3000, dtype=np.uint64)
    assert (sort_keys(high.copy(), np.empty_like(high), 32) == np.sort(high)).all()
    assert len(sort_keys(keys[:0], keys[:0].copy(), 0)) == 0
