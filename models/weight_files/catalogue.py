"""The published weights of the method: path, digest, type and accuracy of every file.

The authors keep the same files, with the same paths and git blob ids, in two repositories on GitHub: the one of the
paper and its successor. Accuracies: their README and training notebooks, on AffectNet's validation set with eight and
with seven classes. ``licences`` states what the files may be used for.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ORIGIN = "av-savchenko/face-emotion-recognition"
BRANCH = "main"
# In the order in which they are tried.
ORIGINS = tuple(f"https://raw.githubusercontent.com/{name}/{BRANCH}" for name in (ORIGIN, "sb-ai-lab/EmotiEffLib"))
Kind = Literal["module", "state_dict", "keras", "onnx"]
_EMOTIONS, _FACES = "models/affectnet_emotions", "models/pretrained_faces"


@dataclass(frozen=True)
class PublishedWeights:
    """One published file.

    Attributes:
        name: name on the command line.
        path: path in each repository.
        blob_id: git blob id, 40 hex digits, which a download must match.
        kind: a pickled PyTorch module, a state dict, a Keras HDF5 file, or an ONNX graph.
        backbone: registry name of the network that the weights fit; "" if the registry has none.
        accuracy: published accuracy for eight and for seven classes in percent; "-": not published.
    """

    name: str
    path: str
    blob_id: str
    kind: Kind
    backbone: str = ""
    accuracy: str = "-"

    @property
    def is_convertible(self) -> bool:
        """Whether ``models convert`` can convert the file to weights of a backbone."""
        return bool(self.backbone) and self.kind != "onnx"


def _emotion(name: str, blob_id: str, accuracy: str = "-", *, fits: bool = True) -> PublishedWeights:
    return PublishedWeights(name, f"{_EMOTIONS}/{name}.pt", blob_id, "module", name if fits else "", accuracy)


def _onnx(name: str, blob_id: str) -> PublishedWeights:
    return PublishedWeights(f"{name}.onnx", f"{_EMOTIONS}/onnx/{name}.onnx", blob_id, "onnx")


def _faces(name: str, blob_id: str, backbone: str) -> PublishedWeights:
    return PublishedWeights(name, f"{_FACES}/{name}.pt", blob_id, "state_dict", backbone)


_ENTRIES = (
    _emotion("enet_b0_8_best_vgaf", "7219cfb037209b253ea8b81cf969e60a00e9181c", "61.32 / 64.57"),
    _emotion("enet_b0_8_best_afew", "9540c8beff661f1c2fca16de63b530cce24bb17d", "60.95 / 64.63"),
    _emotion("enet_b0_8_va_mtl", "b7223bd1ab092a1b5a42bc04a5f4fbfe4d9f8b9b", "61.93 / 64.94"),
    _emotion("enet_b2_7", "5a8ccbb17913461296003be726a22b6fc40d602b", "- / 66.34"),
    _emotion("enet_b2_8", "eed81e6368877e89f8a99cfabadae7c3ddc3a949", "63.03 / 66.29"),
    _emotion("enet_b2_8_best", "43be51786607c44fd13df41a497056c6accf7188", "63.125 / 66.51"),
    PublishedWeights(
        "mobilenet_7",
        f"{_EMOTIONS}/mobilenet_7.h5",
        "3a3d5bb84506960a3ace7586b42b010623bae099",
        "keras",
        "mobilenet_7",
        "- / 64.71",
    ),
    _emotion("mbf_va_mtl", "522bdabca7c655a7abde9cfca17e3dfcceadf9a0", "62.33 / -", fits=False),
    _emotion("mobilevit_va_mtl", "d648cb1a20a5b1ab0af64192ec9be39e5cdd3961", "62.5 / -", fits=False),
    _onnx("enet_b0_8_best_vgaf", "49772db4e87ee6df57087fba131832a959e5c64d"),
    _onnx("enet_b0_8_va_mtl", "7ce9d6dd5b82b260bc19bfe7822a6ffa1abb6011"),
    _onnx("enet_b2_8", "a7cb612cbab1ce3d50dd52e57285fb2c7ea6d0d9"),
    _onnx("enet_b2_7", "cdd6a6070b72ed2e59e15e810ae0ecdbcb0f7626"),
    _onnx("enet_b2_8_best", "7e53eb31fefa28f6667195b27c7adade87da0a8f"),
    _onnx("mbf_va_mtl", "194db927ec135679e5cd0a267c5605e2e9d68e7e"),
    _onnx("mobilevit_va_mtl", "bed5781a1af9924536638ac3786603e124ee900e"),
    _faces("state_vggface2_enet0_new", "496a7036adeb300a6371d99bcccb28404f2f52d5", "vggface2_enet0"),
    _faces("state_vggface2_enet2", "be6ad8550fc0043d1ee90553eee654252167322a", "vggface2_enet2"),
)
CATALOGUE: dict[str, PublishedWeights] = {entry.name: entry for entry in _ENTRIES}
_BY_BACKBONE = {entry.backbone: entry for entry in _ENTRIES if entry.is_convertible}


def find_published(name: str) -> PublishedWeights:
    """Return the entry of that name, or of the backbone of that name.

    Raises:
        ValueError: unknown name; the message lists the known ones.
    """
    found = CATALOGUE.get(name) or _BY_BACKBONE.get(name)
    if found is None:
        raise ValueError(f"expected one of {', '.join(CATALOGUE)}, got {name!r}")
    return found


def network_of(published: PublishedWeights) -> str:
    """Return the name of the network in a file: its backbone, or its own name without the format."""
    return published.backbone or published.name.removesuffix(".onnx")


def published_for(backbone: str) -> PublishedWeights | None:
    """Return the published weights of a backbone of the registry, or None."""
    return _BY_BACKBONE.get(backbone)


def find_by_blob_id(blob_id: str) -> PublishedWeights | None:
    """Return the published file with that content, or None."""
    return next((entry for entry in _ENTRIES if entry.blob_id == blob_id), None)


def git_blob_id(path: Path) -> str:
    """Return git's id for the content of a file: sha1 of ``blob <size>``, a zero byte and the bytes; 40 hex digits."""
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: digest).hexdigest()
