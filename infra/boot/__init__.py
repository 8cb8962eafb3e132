"""The staged boot, inside the image: prepare, shard, tokenizer, train, report; supervision and exit codes."""
