"""Run with an old timm in PYTHONPATH: saves a whole module with random weights, and what it gives for a picture.

python save_module.py ARCHITECTURE CLASSES FORM INPUT_PX FOLDER
"""

import collections.abc
import sys
import types

import torch

# timm 0.4.5 takes these from a module that PyTorch has since removed.
six = types.ModuleType("torch._six")
six.container_abcs, six.string_classes, six.int_classes, six.inf = collections.abc, str, int, float("inf")
sys.modules["torch._six"] = six

import timm  # noqa: E402

architecture, classes, form, size, folder = sys.argv[1:]
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
torch.save(network if form != "parallel" else torch.nn.DataParallel(network), f"{folder}/module.pt")
pixels = torch.randn(2, 3, int(size), int(size))
with torch.no_grad():
    embeddings = network.forward_features(pixels)
    if embeddings.ndim == 4:
        embeddings = embeddings.mean(dim=(2, 3))
    torch.save({"pixels": pixels, "embeddings": embeddings, "logits": network(pixels)}, f"{folder}/outputs.pt")
print(timm.__version__)
