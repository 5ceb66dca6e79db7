import numpy as np
import pytest

from models.faces.cascade_canvas import pooled_side, side_by_side
from models.faces.detection import DetectorParams, level_cells, level_size


@pytest.mark.parametrize("frame", [(360, 640), (1080, 1920), (1280, 720), (41, 3000), (12, 12), (97, 97)])
@pytest.mark.parametrize("min_face_px", [12, 20, 40])
def test_levels_lie_apart_on_a_canvas_of_little_waste(frame, min_face_px):
    levels = [level_size(*frame, scale) for scale in DetectorParams(min_face_px=min_face_px).scales(*frame)]
    if not levels:
        return
    sizes = [(pooled_side(rows), pooled_side(columns)) for rows, columns in levels]
    assert [level_cells(*level) for level in levels] == [(rows - 4, columns - 4) for rows, columns in sizes]
    corners, canvas = side_by_side(sizes)
    taken = np.zeros(canvas, int)
    for (row, column), (rows, columns) in zip(corners, sizes, strict=True):
        assert row + rows <= canvas[0] and column + columns <= canvas[1]
        taken[row : row + rows, column : column + columns] += 1
    assert taken.max() == 1
    assert taken.mean() > 0.75
