"""Acceptance rules: which drafted tokens stay. What they emit is plain decoding's text, or has its distribution."""

from unspool.acceptance.follow import Follow
from unspool.acceptance.lossless import Lossless

__all__ = ["Follow", "Lossless"]
