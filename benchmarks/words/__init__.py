"""Sound and words on the captioned scenes: what alignment gains from pre-training, and what it has never heard of."""
