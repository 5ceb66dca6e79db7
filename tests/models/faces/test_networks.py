import numpy as np
import pytest
import torch

from models.engines.openvino import run_network
from models.faces.kernels import first_layer
from models.faces.mtcnn import build_networks
from models.faces.networks import FIRST_CHANNELS, first_layer_weights, load_proposer, load_refiner


def random_array(*shape):
    return np.random.default_rng(3).uniform(-1, 1, shape).astype(np.float32)


# Even and odd sizes, because pooling rounds up.
@pytest.mark.parametrize("size", [(12, 12), (13, 12), (12, 15), (31, 64), (33, 77)])
def test_both_parts_of_pnet_equal_the_whole_network(size):
    level, plain = random_array(1, 3, *size), build_networks()["pnet"]
    with torch.no_grad():
        first = plain.pool1(plain.prelu1(plain.conv1(torch.from_numpy(level)))).numpy()
        expected = [output.numpy() for output in plain(torch.from_numpy(level))]
    rows, columns = first.shape[2:]
    maps = np.full((FIRST_CHANNELS, rows + 3, columns + 5), 7, np.float32)
    first_layer(level[0], *first_layer_weights(), maps, (2, 4))
    np.testing.assert_allclose(maps[:, 2 : 2 + rows, 4 : 4 + columns], first[0], atol=1e-5)
    maps[:, 2 : 2 + rows, 4 : 4 + columns] = 7
    assert (maps == 7).all(), "values outside of its area were written"
    for shape in ([1, *first.shape[1:]], [1, FIRST_CHANNELS, -1, -1]):
        for got, wanted in zip(run_network(load_proposer(shape), first), expected, strict=True):
            np.testing.assert_allclose(got, wanted, atol=1e-5)


@pytest.mark.parametrize(("name", "size"), [("rnet", 24), ("onet", 48)])
def test_refiners_take_any_number_of_crops(name, size):
    request = load_refiner(name)
    for count in (1, 5, 2):
        crops = random_array(count, 3, size, size)
        with torch.no_grad():
            expected = build_networks()[name](torch.from_numpy(crops))
        for got, wanted in zip(run_network(request, crops), expected, strict=True):
            np.testing.assert_allclose(got, wanted.numpy(), atol=1e-5)
