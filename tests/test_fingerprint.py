from capfilt.fingerprint import fingerprint


def test_a_fingerprint_follows_the_values_alone():
    assert fingerprint({"a": 1, "b": [0.5, None]}) == fingerprint({"b": [0.5, None], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
