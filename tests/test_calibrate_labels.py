"""Labels are read from CSV, and speak of the candidates that a reader would take them for."""

import pytest
from ledgers import SHARD, complete, new_run, record, synthetic, web

from capfilt.calibrate.labels import Label, match_labels, read_labels
from capfilt.errors import QueryError
from capfilt.query import open_run


def test_a_file_is_read_with_its_meanings(tmp_path):
    file = tmp_path / "labels.csv"
    file.write_text('note,key,text,label\n,a,"x, y",1\n,b,z,No,,\n')

    assert read_labels(file) == [Label("a", "x, y", True), Label("b", "z", False)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("key,text\na,b\n", "has no column label"),
        ("key,text,label\na,b,perhaps\n", "line 2: label 'perhaps' is none of 1, true"),
        ("", "has no column key, label, text"),
        ("key,text,label\n", "has a head, but no line below it"),
        ("label,key,text,label\n1,a,b,0\n", "has several columns label; give all but one"),
        ("label,key,text\n1,a,a dog, brown\n", "line 2: has more cells than the head; put texts with commas"),
        (f"key,text,label\na,b,{'x' * 100_000}\n", "line 2: label 'x{59}…' is none of"),
    ],
)
def test_a_file_that_cannot_be_read_names_the_line(tmp_path, text, message):
    file = tmp_path / "labels.csv"
    file.write_text(text)
    with pytest.raises(QueryError, match=message):
        read_labels(file)


def test_of_labels_that_contradict_each_other_the_same_one_is_named_each_time(tmp_path):
    labels = [Label(f"key{n}", "a dog", match) for n in range(9, -1, -1) for match in (True, False)]

    with open_run(new_run(tmp_path).root) as opened:
        found = match_labels(opened, labels)

    assert [label.key for label in found.contradicting] == [f"key{n}" for n in range(10)]


def test_a_label_speaks_of_the_scored_texts_of_one_sample_that_read_as_it_does(tmp_path):
    run = new_run(tmp_path)
    candidates = [
        *(web(0, 0.75, "A  <b>dog</b>"), synthetic(0, 0.25, "A dog")),
        *(web(1, 0.5, "A cat"), web(2, None, "A cow")),
        web(3, 0.5, "A cat")._replace(key="key1"),
    ]
    complete(run, SHARD, [record(n) for n in range(4)], candidates)
    dog, cat, cow = Label("key0", " A dog ", True), Label("key1", "A cat", False), Label("key2", "A cow", True)

    with open_run(run.root) as opened:
        found = match_labels(opened, [dog, cat, cow])

    assert (found.missing, found.ambiguous) == ([cow], [cat])
    assert sorted(found.sources) == ["synthetic", "web"]
    for source, score in (("synthetic", 0.25), ("web", 0.75)):
        judged = found.sources[source]
        assert (judged.true.total, judged.false.total) == (1, 0)
        assert [judged.true.at(round(10_000 * score) + more).part for more in (0, 1)] == [1, 0]
