"""One way to hash a value, so that the same facts give the same hash in every room and on every machine."""

import hashlib
import json


def sha256_json(value: object) -> str:
    """Return the sha256 of a value's canonical JSON: sorted keys, no spaces, UTF-8."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
