import pytest
from ledgers import SHARD, complete, new_run, record, synthetic, web

from capfilt.query import open_run
from capfilt.stats import cut, describe_texts, render_slices, render_text, summarise


def lines_of(text):
    return [" ".join(line.split()) for line in text.splitlines()]


@pytest.fixture
def opened(tmp_path):
    run = new_run(tmp_path)
    records = [record(0), record(1, text_status="missing"), record(2, status="too_large"), record(3)]
    texts = [web(0, 0.9), synthetic(0, 0.1), synthetic(1, 0.6), web(3, 0.2), synthetic(3, 0.3)]
    complete(run, SHARD, records, texts)
    with open_run(run.root) as opened:
        yield opened


def test_the_text_shows_what_was_found(opened):
    text = render_text(summarise(opened), describe_texts(opened))

    lines = lines_of(text)
    assert lines[0] == f"{opened.run.root}: 1 of 1 shards complete, policy default"
    for line in (
        "attempted 4",
        "too_large 1 25.0 %",
        "with a kept text 2 50.0 %",
        "why samples failed: capfilt inspect RUN --failed",
        "web 2 1 50.0 % 1 low_itm",
        "synthetic itm 0.1 0.1 0.3 0.6 0.6",
        "caption 0.5 8.0",
        "15 tokens generated, 30.0 for each second of captioning",
        "repeat another 50.0 % 66.7 %",
        "synthetic 3 a caption",
    ):
        assert line in lines
    assert "25 % of captions from nucleus sampling, 19 % from beam search" in text
    assert max(map(len, text.splitlines()[1:])) <= 110


def test_a_run_without_texts_is_shown_too(tmp_path):
    with open_run(new_run(tmp_path).root) as opened:
        assert "0 of 1 shards complete" in render_text(summarise(opened), describe_texts(opened))


def test_bars_are_plain_where_they_must_be(opened):
    stats, slices = summarise(opened), cut(opened, ["source"])

    assert render_text(stats, plain=True).isascii()
    assert render_slices(slices, plain=True).isascii()
    assert "█" in render_text(stats, plain=False)
    assert "#" not in render_text(stats, plain=False)


def test_a_condition_stands_in_the_head_and_hides_what_it_does_not_limit(opened):
    text = render_text(summarise(opened, "itm < 0.5"))

    assert text.splitlines()[0].endswith("policy default, where itm < 0.5")
    assert "stage" not in text
    assert "own text" not in text


def test_slices_show_parts_others_and_all(opened):
    lines = lines_of(render_slices(cut(opened, ["source", "shard"], top=1)))

    assert lines[0] == f"{opened.run.root}: 1 of 1 shards complete, policy default"
    assert lines[2] == "source shard scored kept noise failed kept share"
    assert lines[3] == "synthetic 00000 3 1 66.7 % 0 ###"
    assert lines[4] == "(2 others) 2 1 50.0 % 1 #####"
    assert lines[5] == "all 5 2 60.0 % 1 ####"


def test_a_domain_cannot_steer_the_terminal_nor_push_the_figures_out_of_it(tmp_path):
    run = new_run(tmp_path)
    urls = [f"http://a\x1b[2J\u202egpj.{'b' * 60}.example/1", "", "", ""]
    complete(run, SHARD, [record(n, url=url) for n, url in enumerate(urls)], [web(0, 0.9)])

    with open_run(run.root) as opened:
        table = render_slices(cut(opened, ["domain"])).partition("\n\n")[2]

    assert not {"\x1b", "\u202e"} & set(table)
    assert f"a[2jgpj.{'b' * 29}...  " in table


def test_texts_from_the_web_cannot_steer_the_terminal(tmp_path):
    run = new_run(tmp_path)
    hostile = "\x1b[2J\u202e<b>red</b>\nnext" + "x" * 99
    complete(run, SHARD, [record(n) for n in range(4)], [web(0, text=hostile), web(1, text=hostile)])

    with open_run(run.root) as opened:
        text = render_text(summarise(opened), describe_texts(opened))

    shown = next(line for line in text.splitlines() if "rednext" in line or "red next" in line)
    assert not {"\x1b", "\u202e", "<b>"} & set(text)
    assert shown.endswith("...")
