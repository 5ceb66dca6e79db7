"""The three networks of the MTCNN cascade in OpenVINO.

P-Net is split: its first layer, which has three input channels, is a compiled loop (``kernels.first_layer``), and the
rest runs on all levels of the image pyramid at once, placed next to each other on one canvas. The rest has no pooling,
so that the result of a cell depends on its own window only.
"""

import functools
from typing import Any

import numpy as np

from models.engines.openvino import compile_network, load_or_convert
from models.faces.detection import CELL_PX, detector_weights_digest

SIZES_PX = {"rnet": 24, "onet": 48}
FIRST_CHANNELS = 10


def load_refiner(name: str) -> Any:
    """Return a request for ``rnet`` or ``onet`` that takes any number of crops float32 [n, 3, size, size]."""
    return compile_network(_load_model(name), shape=[-1, 3, SIZES_PX[name], SIZES_PX[name]], precision="float32")


def load_proposer(shape: list[int]) -> Any:
    """Return a request for P-Net without its first layer, for input [n, 10, h, w]; -1 means any size."""
    model = _load_model("pnet").clone()
    return compile_network(_cut_after_first_layer(model), shape=shape, precision="float32")


@functools.cache
def first_layer_weights() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return weights float32 [10, 3, 3, 3], bias [10] and PReLU slopes [10] of P-Net's first layer."""
    activation = _first_pooling(_load_model("pnet")).input_value(0).get_node()
    biased, slope = (activation.input_value(n).get_node() for n in (0, 1))
    weight = biased.input_value(0).get_node().input_value(1).get_node()
    parts = (weight, biased.input_value(1).get_node(), slope)
    weight, bias, slope = (np.array(part.data, np.float32) for part in parts)
    return weight, bias.ravel(), slope.ravel()


def _first_pooling(model: Any) -> Any:
    return next(op for op in model.get_ordered_ops() if op.get_type_name() == "MaxPool")


def _cut_after_first_layer(model: Any) -> Any:
    import openvino
    from openvino import opset13

    pooled = _first_pooling(model).output(0)
    start = opset13.parameter([-1, FIRST_CHANNELS, -1, -1], np.float32)
    for user in pooled.get_target_inputs():
        user.replace_source_output(start.output(0))
    return openvino.Model(model.get_results(), [start])


@functools.cache
def _load_model(name: str) -> Any:
    return load_or_convert(f"mtcnn-{name}", detector_weights_digest(), lambda: _convert(name))


def _convert(name: str) -> Any:
    import openvino
    import torch

    from models.faces.mtcnn import build_networks

    size = SIZES_PX.get(name, CELL_PX)
    return openvino.convert_model(build_networks()[name], example_input=torch.zeros(2, 3, size, size))
