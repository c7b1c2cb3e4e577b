import pytest

from capfilt.stats.terminal import bar, columns, indented, share


def test_columns_are_aligned():
    assert columns([["a", 1, "x"], ["long", 100, ""]]) == "a       1  x\nlong  100"
    assert columns([["a", "b", 1], ["aa", "bb", 22]], left=2) == "a   b    1\naa  bb  22"


@pytest.mark.parametrize(
    ("part", "fine", "plain"),
    [(0, "", ""), (8, "████████", "########"), (4, "████", "####"), (1, "█", "#"), (0.5, "▌", ""), (1.5, "█▌", "##")],
)
def test_a_bar_fills_its_share(part, fine, plain):
    assert bar(part, 8, 8, plain=False) == fine
    assert bar(part, 8, 8, plain=True) == plain


def test_there_is_no_share_of_nothing():
    assert (share(1, 8), share(0, 0), bar(0, 0, 8, plain=False)) == ("12.5 %", "", "")


def test_whole_numbers_are_told_with_commas():
    assert columns([["texts", 7315], ["share", "7315"]]).splitlines() == ["texts  7,315", "share   7315"]


def test_a_long_list_ends_with_how_many_more_there_are():
    lines = [str(n) for n in range(12)]
    assert indented(lines[:10]) == [f"  {n}" for n in range(10)]
    assert indented(lines) == [*(f"  {n}" for n in range(10)), "  and 2 more"]
