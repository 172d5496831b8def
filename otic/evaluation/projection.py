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
    spread = vectors.std(0)
    x = ((vectors - vectors.mean(0)) / np.where(spread > 1e-6, spread, 1.0)).astype(np.float64)
    _, _, axes = np.linalg.svd(x, full_matrices=False)
    flat = x @ axes[: 50 if method == "tsne" else 2].T
    if method == "pca" or len(x) < 10:
        return np.pad(flat, ((0, 0), (0, 2)))[:, :2]
    from sklearn.manifold import TSNE

    start = flat[:, :2] / max(float(flat[:, 0].std()), 1e-12) * 1e-4
    perplexity = min(30.0, (len(x) - 1) / 3)
    return TSNE(init=start, perplexity=perplexity, random_state=fold(seed) % 2**32).fit_transform(flat).astype(float)
