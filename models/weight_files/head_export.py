"""Export heads to ONNX: seeds are averaged, and standardisation and activations are parts of the network."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from data_contracts.vocabulary import BranchName
from models.heads.head import ACTIVATIONS, OUTPUT_NAMES, Activation, BranchConfig, Head
from models.heads.mlp import MlpHead
from models.heads.recipes import TemporalLayers, hidden_sizes
from models.heads.sequences import SubjectSequence, input_width
from models.heads.temporal.head import TemporalHead, width_of
from models.heads.temporal.networks import TemporalKind, TemporalNetwork, average_windows
from models.heads.temporal.positions import POSITIONS_PER_SECOND
from models.weight_files.export import OPSET, import_package, silence_exporters


def export_head(head: Head[Any], name: str, out: Path) -> Path:
    """Write ``NAME.onnx``, and ``NAME.onnx.json`` next to it, which documents its use. Return the file's path.

    Inputs are those of ``embeddings`` float32 [n, D], ``logits`` float32 [n, C] and ``present`` bool [n] that the head
    takes, n of any size; outputs ``expr`` [n, 8], ``va`` [n, 2] and ``au`` [n, 12], float32, those of the head.

    Raises:
        ValueError: heads of this kind are not exported, or a package of the extra ``export`` is missing.
    """
    import_package("onnx")
    network = _HeadNetwork(head).eval()
    out.mkdir(parents=True, exist_ok=True)
    target = out / f"{name}.onnx"
    with tempfile.TemporaryDirectory(dir=out, prefix=".unfinished-") as scratch:
        written = Path(scratch) / target.name
        # With its fused layers, torch cannot export an encoder.
        is_fused = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            with silence_exporters(), torch.inference_mode():
                torch.onnx.export(
                    network,
                    network.examples(),
                    str(written),
                    input_names=network.inputs,
                    output_names=list(head.config.branches),
                    dynamic_axes={one: {0: "n"} for one in (*network.inputs, *head.config.branches)},
                    opset_version=OPSET,
                    dynamo=False,
                )
        finally:
            torch.backends.mha.set_fastpath_enabled(is_fused)
        described = Path(scratch) / "described.json"
        described.write_text(json.dumps(_describe(head, network, target.name), indent=1) + "\n")
        os.replace(described, out / f"{target.name}.json")
        os.replace(written, target)
    return target


def largest_difference(head: Head[Any], path: Path) -> float:
    """Return the largest absolute difference between the outputs of a head and of its exported file.

    The inputs are 700 random rows; outputs without a face are not compared.
    """
    onnxruntime = import_package("onnxruntime")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    random, count, config = np.random.default_rng(0), 700, head.config
    sizes = {"embeddings": config.embedding_size, "logits": config.logits_size}
    vectors = {name: random.normal(size=(count, size)).astype(np.float32) for name, size in sizes.items()}
    present = (random.random(count) < 0.9) | (head.works_on == "rows")
    given = vectors | {"present": present}
    outputs = session.run(None, {one.name: given[one.name] for one in session.get_inputs()})
    expected = head.predict_sequence(
        SubjectSequence(vectors["embeddings"], vectors["logits"], present, np.arange(count) / 30)
    )
    pairs = zip(outputs, expected.values(), strict=True)
    return max(float(np.abs(output - values)[present].max()) for output, values in pairs)


class _HeadNetwork(nn.Module):
    """All seeds and branches of a head. Its inputs are frames, of temporal heads positions in time."""

    def __init__(self, head: Head[Any]) -> None:
        super().__init__()
        self._head, branches = head, head.config.branches
        self.is_temporal = isinstance(head, TemporalHead)
        if not (self.is_temporal or isinstance(head, MlpHead)):
            raise ValueError(f"kind {head.kind}: expected mlp, tcn or transformer; others are not exported")
        takes = {features for one in branches.values() for features in _parts_of(one)}
        self.inputs = [one for one in ("embeddings", "logits") if one in takes] + ["present"] * self.is_temporal
        make = _temporal_network if self.is_temporal else _mlp_network
        seeds = range(head.config.seeds)
        self._networks = nn.ModuleDict({b: nn.ModuleList(make(head, b, seed) for seed in seeds) for b in branches})

    def examples(self) -> tuple[Tensor, ...]:
        """Return random inputs for some rows."""
        count, random, config = 200, torch.Generator().manual_seed(0), self._head.config
        sizes = {"embeddings": config.embedding_size, "logits": config.logits_size}
        vectors = [torch.randn(count, sizes[name], generator=random) for name in self.inputs if name in sizes]
        present = torch.rand(count, generator=random) < 0.9
        return (*vectors, present) if self.is_temporal else tuple(vectors)

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        values, outputs = dict(zip(self.inputs, given, strict=True)), []
        of_seeds: dict[BranchName, list[Tensor]] = {}
        for branch, settings in self._head.config.branches.items():
            parts = [values[name] for name in _parts_of(settings)]
            if settings.features != "embeddings" and settings.scores == "probabilities":
                parts[-1] = torch.softmax(parts[-1], dim=1)
            inputs = torch.cat(parts, dim=1)
            networks = cast(nn.ModuleList, self._networks[branch])
            activation = settings.activation or ACTIVATIONS[branch]
            of_seeds[branch] = []
            for seed, network in enumerate(networks):
                earlier = [of_seeds[other][seed] for other in settings.inputs_from]
                present = [values["present"]] if self.is_temporal else []
                of_seeds[branch].append(_activate(network(torch.cat([inputs, *earlier], dim=1), *present), activation))
            outputs.append(torch.stack(of_seeds[branch]).mean(0))
        return tuple(outputs)


def _parts_of(settings: BranchConfig) -> tuple[str, ...]:
    return {"embeddings": ("embeddings",), "scores": ("logits",), "both": ("embeddings", "logits")}[settings.features]


def _activate(values: Tensor, activation: Activation) -> Tensor:
    if activation == "softmax":
        return torch.softmax(values, dim=1)
    if activation == "clip":
        return values.clamp(-1, 1)
    return torch.tanh(values) if activation == "tanh" else torch.sigmoid(values)


def _tensors(head: Head[Any], branch: BranchName, seed: int) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.array(values)) for name, values in head.weights_of(seed, branch).items()}


def _mlp_network(head: Head[Any], branch: BranchName, seed: int) -> nn.Module:
    tensors, layers = _tensors(head, branch, seed), list[nn.Module]()
    for number in range(len(hidden_sizes(head.config.branches[branch].hidden_units)) + 1):
        weight = tensors[f"{number}.weight"]
        layer = nn.Linear(weight.shape[1], weight.shape[0])
        layer.load_state_dict({"weight": weight, "bias": tensors[f"{number}.bias"]})
        layers += [*([nn.ReLU()] if number else []), layer]
    return nn.Sequential(*layers)


class _Sequence(nn.Module):
    """A temporal network over a whole sequence, of a Transformer in overlapping windows, as ``layers`` computes it."""

    def __init__(self, network: TemporalNetwork, branch: BranchName, window: int | None) -> None:
        super().__init__()
        self._network, self._branch, self._window = network, branch, window

    def forward(self, inputs: Tensor, present: Tensor) -> Tensor:
        if self._window:
            return average_windows(self._network, self._branch, self._window, inputs, present)
        outputs: Tensor = self._network(inputs[None], present[None], torch.ones_like(present)[None])[self._branch]
        return outputs[0]


def _temporal_network(head: Head[Any], branch: BranchName, seed: int) -> nn.Module:
    settings, config = head.config.branches[branch], head.config
    layers = settings.temporal or TemporalLayers()
    inputs = input_width(settings.features, config.embedding_size, config.logits_size)
    network = TemporalNetwork(cast(TemporalKind, head.kind), inputs, width_of(settings), layers, (branch,))
    network.load_branch(branch, _tensors(head, branch, seed))
    return _Sequence(network, branch, layers.window if head.kind == "transformer" else None)


def _describe(head: Head[Any], network: _HeadNetwork, name: str) -> dict[str, Any]:
    config = head.config
    rows = "positions, 1 / 30 s apart" if network.is_temporal else "frames in any order"
    inputs: dict[str, dict[str, Any]] = {
        "embeddings": {
            "type": "float32",
            "shape": ["n", config.embedding_size],
            "meaning": "penultimate layer of the backbone; not standardised",
        },
        "logits": {
            "type": "float32",
            "shape": ["n", config.logits_size],
            "meaning": "class outputs of the backbone, before any softmax",
        },
        "present": {
            "type": "bool",
            "shape": ["n"],
            "meaning": "whether the face is visible; other inputs of such rows may have any value",
        },
    }
    described: dict[str, Any] = {
        "file": name,
        "task": config.task,
        "kind": head.kind,
        "rows": f"n {rows}",
        "inputs": {one: inputs[one] for one in network.inputs},
        "outputs": {
            branch: {
                "type": "float32",
                "shape": ["n", len(OUTPUT_NAMES[branch])],
                "columns": list(OUTPUT_NAMES[branch]),
                "activation": settings.activation or ACTIVATIONS[branch],
            }
            for branch, settings in config.branches.items()
        },
    }
    if network.is_temporal:
        described["sequence"] = (
            f"the rows are one person at {POSITIONS_PER_SECOND} positions per second, each with the features of the "
            "frame that is nearest in time; outputs of frames are interpolated linearly"
        )
    return described
