"""Medians over running windows that are cut at the ends, exact, in time that hardly grows with the window.

Narrow windows go through a sorting network, many windows at once; wide ones are sets of ranks. What smoothing is for
stands in ``smoothing``.
"""

import functools

import numba
import numpy as np

from models.decisions.radix_sort import rising_key, sort_keys

_NARROW_FRAMES = 15  # windows up to here go through a network
_BLOCK_FRAMES = 1024
_WORD = 64
_LEAST_STRETCH_FRAMES = 2048


def running_median(values: np.ndarray, half_width: int) -> np.ndarray:
    """Median of float32 [T, K] over 2 * half_width + 1 frames, cut at the ends; an even count averages its middles.

    Raises:
        ValueError: a value is NaN.
    """
    if np.isnan(values).any():
        raise ValueError("running median: expected a value in every frame, got NaN")
    if not values.size or half_width == 0:
        return values.copy()
    if 2 * half_width + 1 <= _NARROW_FRAMES:
        return _narrow(values, half_width)
    columns = [_wide(np.ascontiguousarray(column), min(half_width, len(values))) for column in values.T]
    return np.stack(columns, axis=1)


def _narrow(values: np.ndarray, half_width: int) -> np.ndarray:
    """Windows of full size throughout: what they lack at the ends is filled with infinities of alternating sign.

    An even number of them leaves the middle where it is. An odd one moves it to one of the two middles, and the same
    with the signs exchanged moves it to the other one.
    """
    count = len(values)
    signs = np.where(np.arange(half_width) % 2 == 0, np.float32(np.inf), -np.float32(np.inf))[:, None]
    outside = np.broadcast_to(signs, (half_width, values.shape[1]))
    padded = np.concatenate([outside[::-1], values, -outside])
    result = _full_windows(padded, half_width)
    exchanged = np.concatenate([-outside[::-1], values, outside])
    edges = [(0, min(half_width, count)), (max(count - half_width, min(half_width, count)), count)]
    for first, end in edges:
        other = _full_windows(exchanged[first : end + 2 * half_width], half_width)
        result[first:end] = (result[first:end] + other) / np.float32(2)
    return result


def _full_windows(padded: np.ndarray, half_width: int) -> np.ndarray:
    """Medians [T, K] of the windows in [T + 2 * half_width, K], a block of frames at a time."""
    size, count = 2 * half_width + 1, len(padded) - 2 * half_width
    result = np.empty((count, padded.shape[1]), np.float32)
    for first in range(0, count, _BLOCK_FRAMES):
        rows = min(_BLOCK_FRAMES, count - first)
        wires = [padded[first + place : first + place + rows] for place in range(size)]
        for low, high, keep_low, keep_high in _median_network(size):
            a, b = wires[low], wires[high]
            if keep_low:
                wires[low] = np.minimum(a, b)
            if keep_high:
                wires[high] = np.maximum(a, b)
        result[first : first + rows] = wires[half_width]
    return result


@functools.cache
def _median_network(size: int) -> list[tuple[int, int, bool, bool]]:
    """Batcher's odd-even merge sort without what the middle does not depend on.

    (place of the less, place of the greater, is the less needed, is the greater needed), in order.
    """
    exchanges = []
    power = 1 << (size - 1).bit_length()
    run = 1
    while run < power:
        step = run
        while step:
            for start in range(step % run, power - step, 2 * step):
                for low in range(start, min(start + step, power - step)):
                    if low // (2 * run) == (low + step) // (2 * run) and low + step < size:
                        exchanges.append((low, low + step))
            step //= 2
        run *= 2
    needed, kept = {size // 2}, []
    for low, high in reversed(exchanges):
        if low in needed or high in needed:
            kept.append((low, high, low in needed, high in needed))
            needed |= {low, high}
    return kept[::-1]


@numba.njit(cache=True, nogil=True)
def _wide(column: np.ndarray, half_width: int) -> np.ndarray:
    """Medians of one column, in stretches short enough for neighbouring ranks of a window to lie close together."""
    count = len(column)
    result = np.empty(count, np.float32)
    stretch = max(32 * (2 * half_width + 1), _LEAST_STRETCH_FRAMES)
    for first in range(0, count, stretch):
        end = min(first + stretch, count)
        start, stop = max(first - half_width, 0), min(end + half_width, count)
        _rank_window(column[start:stop], half_width, first - start, result[first:end])
    return result


@numba.njit(cache=True, nogil=True)
def _rank_window(values: np.ndarray, half_width: int, offset: int, result: np.ndarray) -> None:
    """Medians at ``values[offset:]``: the window is a set of ranks, whose lower middle moves by a step or two."""
    order = _order(values)
    rank = np.empty(len(values), np.int64)
    for place in range(len(order)):
        rank[order[place]] = place
    members = np.zeros(len(values) // _WORD + 1, np.uint64)
    middle, below, size = -1, 0, 0  # rank of the lower middle, how many members are less, how many there are
    entering, leaving = max(offset - half_width, 0), max(offset - half_width, 0)
    for centre in range(offset, offset + len(result)):
        while entering < min(centre + half_width + 1, len(values)):
            new = rank[entering]
            members[new // _WORD] |= np.uint64(1) << np.uint64(new % _WORD)
            size, entering = size + 1, entering + 1
            if middle < 0:
                middle = new
            below += new < middle
        while leaving < centre - half_width:
            old = rank[leaving]
            if old == middle:
                following = _next(members, middle)
                middle, below = (following, below + 1) if following >= 0 else (_previous(members, middle), below - 1)
            below -= old < middle
            members[old // _WORD] &= ~(np.uint64(1) << np.uint64(old % _WORD))
            size, leaving = size - 1, leaving + 1
        wanted = (size - 1) // 2
        while below > wanted:
            middle, below = _previous(members, middle), below - 1
        while below < wanted:
            middle, below = _next(members, middle), below + 1
        lower = values[order[middle]]
        if size % 2:
            result[centre - offset] = lower
        else:
            result[centre - offset] = (lower + values[order[_next(members, middle)]]) / np.float32(2)


@numba.njit(cache=True, nogil=True)
def _order(values: np.ndarray) -> np.ndarray:
    """Indices of the values in rising order, int64."""
    bits = values.view(np.uint32)
    keys, other = np.empty(len(values), np.uint64), np.empty(len(values), np.uint64)
    for at in range(len(values)):
        keys[at] = np.uint64(rising_key(bits[at])) << np.uint64(32) | np.uint64(at)
    return (sort_keys(keys, other, 32) & np.uint64(0xFFFFFFFF)).astype(np.int64)


@numba.njit(cache=True, nogil=True)
def _next(members: np.ndarray, rank: int) -> int:
    """The smallest member above the rank, -1 if there is none."""
    word, bit = rank // _WORD, rank % _WORD
    rest = (members[word] >> np.uint64(bit)) >> np.uint64(1)
    if rest:
        return rank + 1 + _trailing_zeros(rest)
    for place in range(word + 1, len(members)):
        if members[place]:
            return place * _WORD + _trailing_zeros(members[place])
    return -1


@numba.njit(cache=True, nogil=True)
def _previous(members: np.ndarray, rank: int) -> int:
    """The largest member below the rank, -1 if there is none."""
    word, bit = rank // _WORD, rank % _WORD
    rest = members[word] & ((np.uint64(1) << np.uint64(bit)) - np.uint64(1))
    for place in range(word, -1, -1):
        found = rest if place == word else members[place]
        if found:
            return place * _WORD + _highest_bit(found)
    return -1


@numba.njit(cache=True, nogil=True)
def _highest_bit(word: np.uint64) -> int:
    bit = 0
    for step in (32, 16, 8, 4, 2, 1):
        if word >> np.uint64(step):
            word >>= np.uint64(step)
            bit += step
    return bit


@numba.njit(cache=True, nogil=True)
def _trailing_zeros(word: np.uint64) -> int:
    return _highest_bit(word & (~word + np.uint64(1)))
