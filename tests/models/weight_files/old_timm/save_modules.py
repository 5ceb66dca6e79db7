"""Save whole modules with random weights, and the outputs of each for two images. Run with an old timm in PYTHONPATH.

python save_modules.py INPUT_PX FOLDER ARCHITECTURE:CLASSES:FORM:NAME...
"""

import collections.abc
import os
import sys
import types

import torch

# timm 0.4.5 takes these from a module that PyTorch has since removed.
six = types.ModuleType("torch._six")
six.container_abcs, six.string_classes, six.int_classes, six.inf = collections.abc, str, int, float("inf")
sys.modules["torch._six"] = six

import timm  # noqa: E402

size, folder, *wanted = sys.argv[1:]
for architecture, classes, form, name in (one.split(":") for one in wanted):
    place = os.path.join(folder, name)
    os.mkdir(place)
    torch.manual_seed(0)
    network = timm.create_model(architecture)
    layer = torch.nn.Linear(network.classifier.in_features, int(classes))
    network.classifier = layer if form == "linear" else torch.nn.Sequential(layer)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.8, 1.2)
            torch.nn.init.normal_(module.bias, std=0.1)
            torch.nn.init.normal_(module.running_mean, std=0.1)
            torch.nn.init.uniform_(module.running_var, 0.8, 1.2)
    network.eval()
    torch.save(network if form != "parallel" else torch.nn.DataParallel(network), f"{place}/module.pt")
    pixels = torch.randn(2, 3, int(size), int(size))
    with torch.no_grad():
        embeddings = network.forward_features(pixels)
        if embeddings.ndim == 4:
            embeddings = embeddings.mean(dim=(2, 3))
        torch.save({"pixels": pixels, "embeddings": embeddings, "logits": network(pixels)}, f"{place}/outputs.pt")
print(timm.__version__)
