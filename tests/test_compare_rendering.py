from ledgers import record, synthetic, web
from test_compare_figures import compared, run_of

from capfilt.compare import render_comparison


def lines_of(text):
    return [" ".join(line.split()) for line in text.splitlines()]


def test_the_text_shows_what_differs(tmp_path):
    hostile = "\x1b[31ma <b>dog</b>\u202e"
    records = [record(0), record(1, key="\x1b[2Jkey\u202e1"), record(2)]
    texts = [web(0, 0.9), synthetic(1, 0.2, hostile)._replace(key=records[1].key), synthetic(1, 0.1, index=1), web(2)]
    first = run_of(tmp_path, records, texts)
    second = run_of(tmp_path, records[:2], [web(0, 0.25), synthetic(1, 0.75, hostile + " x")], round_=1)

    text = render_comparison(compared(first, second))

    lines = lines_of(text)
    for line in (
        f"first {first.root}: 3 samples, 1 of 1 shards complete, policy default",
        "in both 2 66.7 %",
        "only in the first 1",
        "gained 1 50.0 %",
        "web 1 0.0 % 0.0 % 0 0 1 0 0",
        "synthetic 1 100.0 % 0.0 % 0 1 0 1 0",
        "web itm 1 -0.6500 -0.6500 -0.6500 -0.6500 -0.6500 -0.6500",
        "gained: kept by the second alone",
        "synthetic of s0/1 ([2Jkey1), rejected by the first as low_itm",
        "itm 0.2000 [31ma dog",
        "itm 0.7500 [31ma dog x",
        "web of s0/0 (key0), rejected by the second as low_itm",
        "itm 0.9000 then 0.2500 a web text",
    ):
        assert line in lines
    assert not {"\x1b", "\u202e"} & set(text)


def test_runs_with_nothing_in_common_say_so(tmp_path):
    first = run_of(tmp_path, [record(0)], [web(0)])
    second = run_of(tmp_path, [record(0, image_sha256="b" * 64)], [web(0)], round_=1)

    lines = lines_of(render_comparison(compared(first, second)))

    assert "in both 0 0.0 %" in lines
    assert "only in the second 1" in lines
    assert not any(line.startswith("texts") for line in lines)


def test_what_became_of_the_samples_in_both_stands_below_them(tmp_path):
    records = [record(0), record(1, status="failed", error="decode"), record(2)]
    first = run_of(tmp_path, records, [web(0, 0.9), web(2)])
    second = run_of(tmp_path, [record(0), record(1)], [web(0, 0.25), web(1)], round_=1)

    table = render_comparison(compared(first, second)).split("\n\n")[1].splitlines()

    names = [line.removeprefix("  ").partition("  ")[0] for line in table]
    below = [name for name, line in zip(names, table, strict=True) if line.startswith("  ")]
    assert below == ["kept by both", "gained", "lost", "failed, then ok"]
    first = names.index("in both") + 1
    assert names[first : first + len(below)] == below


def test_what_rounds_to_nothing_has_no_sign_of_less(tmp_path):
    first = run_of(tmp_path, [record(0)], [web(0, 0.75)])
    second = run_of(tmp_path, [record(0)], [web(0, 0.74999)], round_=1)

    text = render_comparison(compared(first, second))

    assert "web itm 1 +0.0000 " in "\n".join(lines_of(text))
    assert "-0.0000" not in text
    assert ": 1 sample, 1 of 1 shards complete, policy" in text


def test_a_score_just_under_the_cut_does_not_look_like_it(tmp_path):
    first = run_of(tmp_path, [record(0)], [web(0, 0.49999)])
    second = run_of(tmp_path, [record(0)], [web(0, 0.5)], round_=1)

    assert "itm 0.4999 then 0.5000 a web text" in lines_of(render_comparison(compared(first, second)))
