"""The three networks of the cascade as processors run them.

P-Net is cut in two: its first layer, of three colours, is a compiled loop (``first_layer`` in ``cascade_kernels``), and
what follows looks at all levels of the pyramid at once, side by side on one canvas. There is no pooling after the cut,
so that a cell's result depends on its own window alone.
"""

import functools
from typing import Any

import numpy as np

from models.engines.openvino import compile_network, load_or_convert
from models.faces.detection import CELL_PX, detector_weights_digest

SIZES_PX = {"rnet": 24, "onet": 48}
FIRST_CHANNELS = 10


def refining_network(name: str) -> Any:
    """A request for ``rnet`` or ``onet`` that takes any number of crops float32 [n, 3, size, size]."""
    return compile_network(_model(name), shape=[-1, 3, SIZES_PX[name], SIZES_PX[name]], precision="float32")


def proposing_network(shape: list[int]) -> Any:
    """A request for P-Net without its first layer, on [n, 10, h, w]; -1 is any size."""
    model = _model("pnet").clone()
    return compile_network(_after_first_layer(model), shape=shape, precision="float32")


@functools.cache
def first_layer_weights() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights float32 [10, 3, 3, 3], bias [10] and slopes below zero [10] of P-Net's first layer."""
    activation = _first_pooling(_model("pnet")).input_value(0).get_node()
    biased, slope = (activation.input_value(n).get_node() for n in (0, 1))
    weight = biased.input_value(0).get_node().input_value(1).get_node()
    parts = (weight, biased.input_value(1).get_node(), slope)
    weight, bias, slope = (np.array(part.data, np.float32) for part in parts)
    return weight, bias.ravel(), slope.ravel()


def _first_pooling(model: Any) -> Any:
    return next(op for op in model.get_ordered_ops() if op.get_type_name() == "MaxPool")


def _after_first_layer(model: Any) -> Any:
    import openvino
    from openvino import opset13

    pooled = _first_pooling(model).output(0)
    start = opset13.parameter([-1, FIRST_CHANNELS, -1, -1], np.float32)
    for user in pooled.get_target_inputs():
        user.replace_source_output(start.output(0))
    return openvino.Model(model.get_results(), [start])


@functools.cache
def _model(name: str) -> Any:
    return load_or_convert(f"mtcnn-{name}", detector_weights_digest(), lambda: _convert(name))


def _convert(name: str) -> Any:
    import openvino
    import torch

    from models.faces.mtcnn import build_networks

    size = SIZES_PX.get(name, CELL_PX)
    return openvino.convert_model(build_networks()[name], example_input=torch.zeros(2, 3, size, size))
