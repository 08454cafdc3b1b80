"""Proof: whether a method's text equals plain decoding's, and if not, whether rounding explains the difference."""
