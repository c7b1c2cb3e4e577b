import pytest

from capfilt.errors import CheckpointError, ModelError, ShardError
from workers.faults import DecoderDied, Kind, death, fault_of, overdue


@pytest.mark.parametrize(
    ("error", "kind", "cause"),
    [
        (ShardError("a.tar: cut short"), Kind.DATA, "data"),
        (CheckpointError("no checkpoint"), Kind.DATA, "data"),
        (OSError(28, "No space left on device"), Kind.STORE, "store"),
        (ConnectionError("503 Slow Down"), Kind.STORE, "store"),
        (ModelError("key 3: not a number"), Kind.SAMPLE, "model"),
        (DecoderDied("a decoder died: SIGSEGV"), Kind.SAMPLE, "death"),
        (RuntimeError("CUDA error"), Kind.SAMPLE, "exception"),
    ],
)
def test_an_error_is_told_by_who_is_to_blame_and_what_was_met(error, kind, cause):
    fault = fault_of(error)

    assert (fault.kind, fault.cause) == (kind, cause)
    assert str(error) in fault.reason


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (fault_of(RuntimeError("at 0x7f01")), fault_of(RuntimeError("at 0x7f02"))),
        (fault_of(ModelError("key 1")), fault_of(ModelError("key 2"))),
        (fault_of(DecoderDied("pid 1")), death("pid 2")),
        (overdue(60), overdue(7.5)),
    ],
)
def test_what_may_end_in_the_ledger_is_told_in_the_same_words_each_time(one, other):
    assert one.reason != other.reason
    assert one.error == other.error != ""


def test_only_what_a_sample_may_have_done_is_told_for_the_ledger():
    assert fault_of(OSError("busy")).error == fault_of(ShardError("cut")).error == ""
