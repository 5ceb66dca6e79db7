"""Sorting many float32 values by the bits of their keys: a fraction of the time of a comparing sort.

Compiled code of other modules contains these functions; numba notices a change only in the module that calls them, so
touch ``thresholds`` and ``running_median`` after a change here.
"""

import numba
import numpy as np

_SIGN = np.uint32(1 << 31)
_DIGIT_BITS, _DIGITS = 11, 3  # 33 bits


@numba.njit(cache=True, nogil=True)
def rising_key(bits: np.uint32) -> np.uint32:
    """The bits of a float32 turned so that they sort as the value does; NaN has no place, -0.0 comes before 0.0."""
    return ~bits if bits & _SIGN else bits | _SIGN


@numba.njit(cache=True, nogil=True)
def bits_of_key(key: np.uint32) -> np.uint32:
    """What ``rising_key`` was given."""
    return key & ~_SIGN if key & _SIGN else ~key


@numba.njit(cache=True, nogil=True)
def sort_keys(keys: np.ndarray, other: np.ndarray, lowest_bit: int) -> np.ndarray:
    """uint64 keys in rising order of the 33 bits from ``lowest_bit`` on; equal ones stay in order.

    ``other`` is of the same length; both arrays are overwritten, and one of them is returned.
    """
    mask = np.uint64((1 << _DIGIT_BITS) - 1)
    for digit in range(_DIGITS):
        shift = np.uint64(lowest_bit + digit * _DIGIT_BITS)
        place = np.zeros((1 << _DIGIT_BITS) + 1, np.int64)
        for key in keys:
            place[((key >> shift) & mask) + np.uint64(1)] += 1
        place = np.cumsum(place)
        for key in keys:
            at = (key >> shift) & mask
            other[place[at]] = key
            place[at] += 1
        keys, other = other, keys
    return keys
