"""Vectors to points in the plane, for the embedding map.

Axes: n vectors, d their length.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from otic.core.seeds import fold


def plane(vectors: Float[np.ndarray, "n d"], *, seed: int = 0, method: str = "tsne") -> Float[np.ndarray, "n 2"]:
    """Neighbours stay neighbours (`tsne`, after 50 principal components), or the two widest axes (`pca`).

    Features are standardised first. Distances between far groups mean nothing in a t-SNE; near ones do.
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    spread = vectors.std(0)
    x = ((vectors - vectors.mean(0)) / np.where(spread > 1e-6, spread, 1.0)).astype(np.float64)
    with threadpool_limits(1):  # matrices this small are slower on many threads, far slower on busy cores
        flat = _principal(x, 50 if method == "tsne" else 2)
        if method == "pca" or len(x) < 10:
            return np.pad(flat, ((0, 0), (0, 2)))[:, :2]
        start = flat[:, :2] / max(float(flat[:, 0].std()), 1e-12) * 1e-4
        perplexity = min(30.0, (len(x) - 1) / 3)
        tsne = TSNE(init=start, perplexity=perplexity, random_state=fold(seed) % 2**32)
        return tsne.fit_transform(flat).astype(np.float64)


def _principal(x: Float[np.ndarray, "n d"], axes: int) -> Float[np.ndarray, "n k"]:
    """Coordinates along the widest axes of centred vectors, the widest first."""
    tall = x.shape[0] >= x.shape[1]
    power, vectors = np.linalg.eigh(x.T @ x if tall else x @ x.T)
    power, vectors = power[::-1][:axes], vectors[:, ::-1][:, :axes]
    return x @ vectors if tall else vectors * np.sqrt(np.maximum(power, 0))
