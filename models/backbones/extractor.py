"""The interface of a loaded backbone, which ``network``, ``cpu`` and ``gpu`` implement. Needs no torch."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import numpy as np

from models.backbones.registry import BackboneSpec


class FeatureExtractor(ABC):
    """A network with its weights on one engine. One object serves one thread at a time.

    Attributes:
        weights_digest: sha256 of the weights file, 64 hex digits.
        engine: library, device and precision, for reports.
    """

    spec: BackboneSpec
    weights_digest: str
    engine: str

    @property
    def class_names(self) -> tuple[str, ...]:
        """Classes in the order of the logits."""
        return self.spec.class_names

    def extract(self, images: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Return embeddings float32 [n, D] and logits float32 [n, C] of RGB uint8 images [h, w, 3].

        Raises:
            FloatingPointError: the network returns values that are not finite.
            MemoryError: the GPU has too little memory for one image.
        """
        embeddings = np.empty((len(images), self.spec.embedding_size), np.float32)
        logits = np.empty((len(images), len(self.class_names)), np.float32)
        for batch, (batch_embeddings, batch_logits) in self._run_batches(images):
            embeddings[batch], logits[batch] = batch_embeddings, batch_logits
        if not (np.isfinite(embeddings).all() and np.isfinite(logits).all()):
            raise FloatingPointError(
                f"backbone {self.spec.name}: expected finite features, got NaN or infinity ({self.engine})"
            )
        return embeddings, logits

    @abstractmethod
    def _run_batches(self, images: Sequence[np.ndarray]) -> Iterator[tuple[slice, tuple[np.ndarray, np.ndarray]]]:
        """Yield the rows of each batch with its embeddings and logits, which may be overwritten by the next batch."""
