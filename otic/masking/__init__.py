"""Masks as pure functions `(count, grid, *, ..., gen) -> bool [count, n]`, True = visible.

`grid` is (time, freq) in patches, and token p = freq * t + f. All randomness comes from `gen`, on whose
device the masks live.
"""

from otic.masking.blocks import block, block_count, inverse_block
from otic.masking.clusters import clusters, clusters_legacy, frames_legacy, legacy_indices, time_major
from otic.masking.curriculum import Curriculum
from otic.masking.ijepa import ijepa_legacy
from otic.masking.multi_block import Views, multi_block
from otic.masking.strips import strips, strips_from
from otic.masking.tokens import gather, positions, scatter, spare
from otic.masking.uniform import lowest, random, some_hidden

__all__ = [
    "Curriculum", "Views", "block", "block_count", "clusters", "clusters_legacy", "frames_legacy", "gather",
    "ijepa_legacy", "inverse_block", "legacy_indices", "lowest", "multi_block", "positions", "random", "scatter",
    "some_hidden", "spare", "strips", "strips_from", "time_major",
]  # fmt: skip
