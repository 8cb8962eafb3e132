"""Bytes that survive: atomic files, hashes, the lease."""
