"""A small run with all that must be borne: hostile texts, duplicates, failures, and a shard that is gone."""

from pathlib import Path

from ledgers import complete, image, input_shard, new_run, records_of, synthetic, web

from capfilt.runs import Run

SCRIPT = "</script><script>document.title='taken'</script><img src=x onerror=document.title='taken'>"
ESCAPES = "\x1b[2J\x1b]0;taken\x07\u202egnp.exe\u2066 &amp; \"quotes' {{ 7 * 7 }}"
LONG = "many words " * 2000

SCORES = (0.95, 0.9, 0.7, 0.52, 0.499, 0.48, 0.2, 0.05)
"""P(match) of the web texts of a shard, by position; those of its captions are the same backwards."""

TEXTS = (SCRIPT, ESCAPES, LONG, "a dog", "ein Hund auf der Wiese", "собака", "click here", "IMG_2034.JPG")


def gallery_run(folder: Path) -> Run:
    """Return a complete run of three shards of eight samples.

    The first holds hostile texts; the second two captions an image, of which some repeat each other or the web text,
    and two samples that failed; the third is gone.
    """
    shards = [input_shard(folder, [image(n) for n in range(8)], id_=f"0000{n}") for n in range(3)]
    run = new_run(folder, shards)
    captions = [synthetic(n, score, f"a caption {n}") for n, score in enumerate(SCORES[::-1])]
    hostile = [
        record._replace(url="javascript:alert(1)//\u202e", key=f"<b>{n}")
        for n, record in enumerate(records_of(shards[0]))
    ]
    own = [web(n, score, text) for n, (score, text) in enumerate(zip(SCORES, TEXTS, strict=True))]
    keyed = [candidate._replace(key=f"<b>{candidate.position}") for candidate in own + captions]
    complete(run, shards[0], hostile, _by_position(keyed))
    complete(run, shards[1], _some_failed(records_of(shards[1])), _by_position(_repeated()))
    complete(run, shards[2], records_of(shards[2]), _by_position([web(n, SCORES[n]) for n in range(8)] + captions))
    Path(shards[2].url).unlink()
    return run


def _by_position(candidates):
    return sorted(candidates, key=lambda candidate: candidate.position)


def _some_failed(records):
    failed = {6: ("truncated", "the file ends inside <b>it"), 7: ("too_many_pixels", "is 99999 x 99999")}
    return [
        record._replace(status=failed[n][0], error=failed[n][1]) if n in failed else record
        for n, record in enumerate(records)
    ]


def _repeated():
    return [
        *(web(0, 0.6, "A dog"), synthetic(0, 0.6, "a dog"), synthetic(0, 0.3, "a cat", 1)),
        *(web(1, 0.3, "a dog"), synthetic(1, 0.3, "a dog"), synthetic(1, 0.8, "a bird", 1)),
        *(synthetic(2, 0.7, "a fish"), synthetic(2, 0.7, "a <b>fish</b>", 1)),
        *(web(3, 0.1), synthetic(3, 0.2, "a horse"), synthetic(3, 0.2, "a horse", 1)),
        *(web(4, 1.0, "a cow"), synthetic(4, 0.0, "a sow"), synthetic(4, 0.5, "a calf", 1)),
        *(web(5, 0.45, "a hen", itc=-0.5), synthetic(5, 0.55, "a duck"), synthetic(5, 0.45, "a goose", 1)),
    ]
