"""The decoding loops and their shared parts. Names no method and no backend."""
