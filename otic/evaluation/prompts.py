"""The sentences that zero-shot classification asks with; they live with inference, which names sounds by them too."""

from otic.inference.prompts import PROMPTS, clean, fill, templates

__all__ = ["PROMPTS", "clean", "fill", "templates"]
