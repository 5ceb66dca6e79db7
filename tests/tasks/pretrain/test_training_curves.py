import io

import numpy as np
from PIL import Image

from tasks.pretrain.pretrain_backbone import draw_curves


def test_a_picture_of_the_epochs():
    file = io.BytesIO()
    draw_curves([{"epoch": e, "train_loss": 1 / e, "accuracy": 0.5 + e / 20} for e in (1.0, 2.0, 3.0)], file)
    image = np.asarray(Image.open(file).convert("RGB"))
    assert image.shape[0] > 300 and image.shape[1] > 800 and len(np.unique(image)) > 50
    empty = io.BytesIO()
    draw_curves([{"epoch": 1.0, "train_loss": 1.0}], empty)
    assert empty.getvalue() != file.getvalue()
