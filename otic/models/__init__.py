"""Networks: the spectrogram transformer, its decoders, heads and poolings."""

from otic.models.decoders import CNNDecoder, DecoderConfig
from otic.models.pooling import POOLINGS, frames, pool
from otic.models.vit import Encoded, ViT, ViTConfig

__all__ = ["CNNDecoder", "DecoderConfig", "Encoded", "POOLINGS", "ViT", "ViTConfig", "frames", "pool"]
