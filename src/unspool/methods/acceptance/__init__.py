"""Acceptance rules: which drafted tokens stay. What they emit is plain decoding's text, or has its distribution."""

from unspool.methods.acceptance.follow import Follow
from unspool.methods.acceptance.lossless import Lossless

__all__ = ["Follow", "Lossless"]
