"""The conformance suite: proofs that every rule and method gives what plain decoding gives."""
