"""Benchmark: speed of methods and peers on the same prompts, measured interleaved."""
