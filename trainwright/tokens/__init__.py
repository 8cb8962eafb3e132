"""Tokens: the tokenizer bundle, token shards, and the order of samples."""
