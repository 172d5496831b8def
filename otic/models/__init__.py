"""Networks: the spectrogram transformer, its decoders, heads and poolings."""

from otic.models.decoders import CNNDecoder, DecoderConfig
from otic.models.pooling import POOLINGS, frames, pool
from otic.models.vit import Encoded, ViT, ViTConfig
from otic.models.vit_decoder import DecoderShape, TransformerDecoder

__all__ = [
    "CNNDecoder", "DecoderConfig", "DecoderShape", "Encoded", "POOLINGS", "TransformerDecoder", "ViT", "ViTConfig",
    "frames", "pool",
]  # fmt: skip
