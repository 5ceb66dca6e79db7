"""Inner loops of the MTCNN cascade on processors, compiled by numba without the GIL.

They compute integral images, area pooling, P-Net's first layer, candidates and non-maximum suppression. An integral
image is int32 [H + 1, (W + 1) * 3] with interleaved colours. Its sums may wrap around; differences of them are still
correct. Pooling windows are those of ``adaptive_avg_pool2d``: from floor(i n / m) to ceil((i + 1) n / m).
"""

import numba
import numpy as np

# Input normalisation of the networks: (x - 127.5) / 128.
_MEAN = np.float32(127.5)
_SCALE = np.float32(0.0078125)
_COLOURS = 3


@numba.njit(cache=True, nogil=True)
def integrate(frame: np.ndarray, part_xyxy_px: tuple[int, int, int, int], sums: np.ndarray) -> None:
    """Fill the integral image of a part (ends exclusive) of a frame uint8 [h, w, 3], C-contiguous.

    Row 0 and column 0 of ``sums`` become 0.
    """
    left, top, right, bottom = part_xyxy_px
    lines = frame.reshape(len(frame), frame.shape[1] * _COLOURS)[top:bottom, left * _COLOURS : right * _COLOURS]
    count = lines.shape[1]
    # Sums of the columns come first, because unlike the sums along a row their loop can be vectorized.
    column = np.zeros(count, np.int32)
    sums[0, : count + _COLOURS] = 0
    for y in range(len(lines)):
        line, here = lines[y], sums[y + 1]
        for at in range(count):
            column[at] += np.int32(line[at])
        here[:_COLOURS] = 0
        red = green = blue = np.int32(0)
        for at in range(0, count, _COLOURS):
            red += column[at]
            green += column[at + 1]
            blue += column[at + 2]
            here[at + 3], here[at + 4], here[at + 5] = red, green, blue


@numba.njit(cache=True, nogil=True)
def _windows(size: int, count: int, first: int, starts: np.ndarray, ends: np.ndarray) -> None:
    """Fill windows ``first``, ``first + 1``, ... of ``count`` windows over ``size`` pixels; others are empty."""
    for place in range(len(starts)):
        number = first + place
        if 0 <= number < count:
            starts[place] = number * size // count
            ends[place] = ((number + 1) * size + count - 1) // count
        else:
            starts[place] = ends[place] = 0


@numba.njit(cache=True, nogil=True)
def _pool(
    sums: np.ndarray, top: np.ndarray, bottom: np.ndarray, left: np.ndarray, right: np.ndarray, out: np.ndarray
) -> None:
    """Write normalised means float32 [3, h, w] of the windows; 0 for an empty window."""
    for i in range(len(top)):
        upper, lower = sums[top[i]], sums[bottom[i]]
        rows = bottom[i] - top[i]
        for j in range(len(left)):
            near, far = left[j] * _COLOURS, right[j] * _COLOURS
            pixels = rows * (right[j] - left[j])
            share = np.float32(1) / np.float32(pixels) if pixels else np.float32(0)
            for colour in range(_COLOURS):
                total = lower[far + colour] - upper[far + colour] - lower[near + colour] + upper[near + colour]
                mean = np.float32(total) * share if pixels else _MEAN
                out[colour, i, j] = (mean - _MEAN) * _SCALE


@numba.njit(cache=True, nogil=True)
def pool_level(
    sums: np.ndarray,
    origin_px: tuple[int, int],
    frame_px: tuple[int, int],
    level_px: tuple[int, int],
    first_px: tuple[int, int],
    out: np.ndarray,
) -> None:
    """Pool a level of the image pyramid or a part of it, float32 [3, h, w], from pixel ``first_px`` (row, column) on.

    Pixels outside the level become grey. ``sums`` is the integral image of the frame from pixel ``origin_px`` on;
    ``frame_px`` and ``level_px`` are the whole sizes (height, width).
    """
    rows, columns = out.shape[1], out.shape[2]
    top, bottom = np.empty(rows, np.int64), np.empty(rows, np.int64)
    left, right = np.empty(columns, np.int64), np.empty(columns, np.int64)
    _windows(frame_px[0], level_px[0], first_px[0], top, bottom)
    _windows(frame_px[1], level_px[1], first_px[1], left, right)
    for i in range(rows):
        if bottom[i]:
            top[i] -= origin_px[0]
            bottom[i] -= origin_px[0]
    for j in range(columns):
        if right[j]:
            left[j] -= origin_px[1]
            right[j] -= origin_px[1]
    _pool(sums, top, bottom, left, right, out)


@numba.njit(cache=True, nogil=True)
def pool_boxes(sums: np.ndarray, origin_px: tuple[int, int], boxes: np.ndarray, out: np.ndarray) -> None:
    """Pool boxes int64 [n, 4] (x1, y1, x2, y2, ends exclusive, not empty) to float32 [n, 3, size, size]."""
    size = out.shape[2]
    top, bottom = np.empty(size, np.int64), np.empty(size, np.int64)
    left, right = np.empty(size, np.int64), np.empty(size, np.int64)
    for number in range(len(boxes)):
        x1, y1, x2, y2 = boxes[number]
        _windows(y2 - y1, size, 0, top, bottom)
        _windows(x2 - x1, size, 0, left, right)
        top += y1 - origin_px[0]
        bottom += y1 - origin_px[0]
        left += x1 - origin_px[1]
        right += x1 - origin_px[1]
        _pool(sums, top, bottom, left, right, out[number])


# All values are finite, and reordering the sums is acceptable.
@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz", "nnan", "ninf"})
def first_layer(
    level: np.ndarray, weight: np.ndarray, bias: np.ndarray, slope: np.ndarray, out: np.ndarray, at: tuple[int, int]
) -> None:
    """Run P-Net's first layer on a level float32 [3, h, w]: 3x3 convolution, PReLU, 2x2 max pooling (rounded up).

    ``weight`` [c, 3, 3, 3], ``bias`` and ``slope`` [c], c even. Write to ``out`` [c, rows, columns] from ``at`` on.
    """
    rows, columns = level.shape[1] - 2, level.shape[2] - 2
    lines, best = np.empty((2, columns), np.float32), np.empty((2, columns), np.float32)
    zero = np.float32(0)
    for i in range((rows + 1) // 2):
        # Two channels at a time, so that each value of the level is read once for both.
        for channel in range(0, len(weight), 2):
            first, second = lines[0], lines[1]
            for y in range(2 * i, min(2 * i + 2, rows)):
                first[:], second[:] = bias[channel], bias[channel + 1]
                for colour in range(_COLOURS):
                    a, b, c = level[colour, y], level[colour, y + 1], level[colour, y + 2]
                    k, m = weight[channel, colour], weight[channel + 1, colour]
                    k0, k1, k2, k3, k4, k5 = k[0, 0], k[0, 1], k[0, 2], k[1, 0], k[1, 1], k[1, 2]
                    m0, m1, m2, m3, m4, m5 = m[0, 0], m[0, 1], m[0, 2], m[1, 0], m[1, 1], m[1, 2]
                    k6, k7, k8, m6, m7, m8 = k[2, 0], k[2, 1], k[2, 2], m[2, 0], m[2, 1], m[2, 2]
                    for x in range(columns):
                        a0, a1, a2, b0, b1, b2 = a[x], a[x + 1], a[x + 2], b[x], b[x + 1], b[x + 2]
                        c0, c1, c2 = c[x], c[x + 1], c[x + 2]
                        first[x] += a0 * k0 + a1 * k1 + a2 * k2 + b0 * k3 + b1 * k4 + b2 * k5
                        first[x] += c0 * k6 + c1 * k7 + c2 * k8
                        second[x] += a0 * m0 + a1 * m1 + a2 * m2 + b0 * m3 + b1 * m4 + b2 * m5
                        second[x] += c0 * m6 + c1 * m7 + c2 * m8
                for which in range(2):
                    line, highest, below = lines[which], best[which], slope[channel + which]
                    for x in range(columns):
                        value = max(line[x], zero) + below * min(line[x], zero)
                        highest[x] = value if y == 2 * i else max(highest[x], value)
            for which in range(2):
                highest = best[which]
                target = out[channel + which, at[0] + i, at[1] : at[1] + (columns + 1) // 2]
                for j in range(columns // 2):
                    target[j] = max(highest[2 * j], highest[2 * j + 1])
                if columns % 2:
                    target[columns // 2] = highest[columns - 1]


@numba.njit(cache=True, nogil=True)
def cut_cells(
    probability: np.ndarray, threshold: float, maps: np.ndarray, side: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find cells of a canvas whose probability [h, w] reaches the threshold.

    Returns:
        their rows and columns int64 [n], and their windows in the first maps [c, h + side - 1, w + side - 1]: float32
        [n, c, side, side].
    """
    rows, columns = np.nonzero(probability >= threshold)
    cells = np.empty((len(rows), len(maps), side, side), np.float32)
    for n in range(len(rows)):
        cells[n] = maps[:, rows[n] : rows[n] + side, columns[n] : columns[n] + side]
    return rows, columns, cells


@numba.njit(cache=True, nogil=True)
def find_candidates(
    probability: np.ndarray,
    shift: np.ndarray,
    at: tuple[int, int],
    first_px: tuple[int, int],
    cells: tuple[int, int],
    scale: float,
    threshold: float,
) -> np.ndarray:
    """Return cells whose probability reaches the threshold, float32 [n, 9]: box in frame px, score, 4 shifts.

    ``probability`` [h, w] and ``shift`` [4, h, w] hold, from ``at`` (row, column) on, the cells of a level or of its
    part from pixel ``first_px`` on. ``cells`` is the number of (rows, columns) of the whole level; others are ignored.
    """
    top, left = at
    rows = min(probability.shape[0] - top, cells[0] - first_px[0] // 2)
    columns = min(probability.shape[1] - left, cells[1] - first_px[1] // 2)
    from_row, from_column = max(0, -first_px[0] // 2), max(0, -first_px[1] // 2)
    count = 0
    for i in range(from_row, rows):
        for j in range(from_column, columns):
            count += probability[top + i, left + j] >= threshold
    found = np.empty((count, 9), np.float32)
    count = 0
    by = np.float32(scale)
    for i in range(from_row, rows):
        for j in range(from_column, columns):
            if probability[top + i, left + j] >= threshold:
                x, y = 2 * j + first_px[1], 2 * i + first_px[0]
                found[count, 0] = np.floor(np.float32(x + 1) / by)
                found[count, 1] = np.floor(np.float32(y + 1) / by)
                found[count, 2] = np.floor(np.float32(x + 12) / by)
                found[count, 3] = np.floor(np.float32(y + 12) / by)
                found[count, 4] = probability[top + i, left + j]
                for k in range(4):
                    found[count, 5 + k] = shift[k, top + i, left + j]
                count += 1
    return found


@numba.njit(cache=True, nogil=True)
def suppress(boxes: np.ndarray, threshold: float, by_smaller: bool) -> np.ndarray:
    """Return the rows that greedy non-maximum suppression keeps, int64, best score first.

    ``boxes`` is float32 [n, >= 5] with the score in column 4. Overlap is intersection over union; with ``by_smaller``
    it is intersection over the smaller box, with sides in whole pixels (+ 1).
    """
    extra = np.float32(1) if by_smaller else np.float32(0)
    order = np.argsort(-boxes[:, 4], kind="mergesort")
    area = (boxes[:, 2] - boxes[:, 0] + extra) * (boxes[:, 3] - boxes[:, 1] + extra)
    gone = np.zeros(len(boxes), np.bool_)
    kept = np.empty(len(boxes), np.int64)
    count = 0
    for a in range(len(order)):
        best = order[a]
        if gone[best]:
            continue
        kept[count] = best
        count += 1
        for b in range(a + 1, len(order)):
            other = order[b]
            if gone[other]:
                continue
            width = min(boxes[best, 2], boxes[other, 2]) - max(boxes[best, 0], boxes[other, 0]) + extra
            height = min(boxes[best, 3], boxes[other, 3]) - max(boxes[best, 1], boxes[other, 1]) + extra
            shared = max(np.float32(0), width) * max(np.float32(0), height)
            whole = min(area[best], area[other]) if by_smaller else area[best] + area[other] - shared
            gone[other] = shared > np.float32(threshold) * whole
    return kept[:count]
