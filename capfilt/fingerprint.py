"""Short hashes of values, which stand in paths and records so that what belongs together is seen to."""

import hashlib
import json


def fingerprint(values: object) -> str:
    """Return a short hash of any JSON value; equal values have equal hashes, in whatever order their keys stand."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
