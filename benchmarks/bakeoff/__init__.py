"""The bake-off: every way of learning on one encoder and one corpus, for the same clips and for the same arithmetic."""
