"""What a teacher's blocks give as one target for each patch (data2vec, arXiv 2202.03555; EAT, SSLAM).

Axes: b clips, m tokens with the extra ones, n patches, d width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def layer_mean(layers: Sequence[Float[Tensor, "b m d"]], extra: int) -> Float[Tensor, "b n d"]:
    """Mean over layers of the patches, each channel standardised over the clip's patches; then LayerNorm; float32.

    Args:
        layers: Outputs of blocks, extra tokens first.
        extra: Tokens before the patches; they are left out.
    """
    mean = torch.stack([F.instance_norm(x[:, extra:].float().mT) for x in layers]).mean(0).mT
    return F.layer_norm(mean, mean.shape[-1:])


def along_main(guess: Float[Tensor, "*rows d"], targets: Float[Tensor, "*others d"]) -> Float[Tensor, "*rows"]:
    """One number for each guess, for pictures: its part along the targets' main component."""
    main = torch.linalg.eigh(targets.flatten(0, -2).T.cov()).eigenvectors[:, -1]
    return guess.float() @ main
