import pytest
import torch
from torchvision.ops import batched_nms

from models.faces.grouped_nms import grouped_nms


@pytest.mark.parametrize(("count", "groups"), [(1, 1), (2, 1), (400, 1), (600, 9), (300, 300)])
@pytest.mark.parametrize("iou", [0.5, 0.7])
def test_keeps_what_the_library_keeps(count, groups, iou):
    random = torch.Generator().manual_seed(count + groups)
    # A crowded square of whole pixels: long chains of boxes, each of which hangs on the one before; equal scores.
    start = torch.randint(0, 60, (count, 2), generator=random)
    boxes = torch.cat([start, start + torch.randint(10, 30, (count, 2), generator=random)], dim=1).float()
    score = torch.randint(0, 50, (count,), generator=random) / 50
    group = torch.randint(0, groups, (count,), generator=random) * 7
    kept = grouped_nms(boxes, score, group, iou)
    expected = batched_nms(boxes, score, group, iou)
    assert set(kept.tolist()) == set(expected.tolist())
    assert groups > 100 or count < 3 or len(kept) < count
    for one in group.unique():
        assert score[kept[group[kept] == one]].diff().le(0).all()


def test_no_boxes_and_boxes_without_area():
    assert grouped_nms(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.long), 0.5).tolist() == []
    points = torch.tensor([[5.0, 5.0, 5.0, 5.0]] * 2)
    assert sorted(grouped_nms(points, torch.ones(2), torch.zeros(2, dtype=torch.long), 0.5).tolist()) == [0, 1]
