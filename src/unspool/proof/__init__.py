"""Proof: is the text of a method that of plain decoding, and if not, does rounding explain it?"""
