"""Records that are made anew with something more."""

from capfilt.records import Candidate


def test_a_candidate_with_scores_is_otherwise_the_same():
    candidate = Candidate(3, "000003", "synthetic", 1, "a dog", "c0ffee", 2, 42, 5, -9.5)
    assert len(set(candidate)) == len(candidate) - 1  # two scores that are not there
    assert candidate.scored(0.75, None) == candidate._replace(itm=0.75)
    assert candidate.scored(0.75, 0.25) == candidate._replace(itm=0.75, itc=0.25)
