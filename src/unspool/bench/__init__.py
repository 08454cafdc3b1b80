"""Benchmark: how fast methods and peers are on the same prompts, measured interleaved."""
