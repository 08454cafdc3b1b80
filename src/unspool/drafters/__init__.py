"""Drafters: one file a method. Each proposes trees of tokens to score and learns from what was scored."""
