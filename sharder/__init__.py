"""Text in, shards out: the shard, tokenizer and encode stages. CPU only, no torch."""
