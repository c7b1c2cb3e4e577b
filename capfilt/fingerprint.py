"""Short hashes of values; paths and records hold them, to show what belongs together."""

import hashlib
import json


def fingerprint(values: object) -> str:
    """Return a short hash of any JSON value; equal values have equal hashes, whatever the order of their keys."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
