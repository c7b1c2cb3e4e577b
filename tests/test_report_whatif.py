import random
from dataclasses import replace
from itertools import product

import pytest
from galleries import gallery_run
from ledgers import SHARD, complete, new_run, record, synthetic, web

from capfilt.config import Policy
from capfilt.ledger import read_candidates
from capfilt.policy import select
from capfilt.query import open_run
from capfilt.report.content import WhatIf
from capfilt.report.whatif import what_if


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return gallery_run(tmp_path_factory.mktemp("run"))


def counted(whatif: WhatIf, own: float, synthetic: float) -> tuple[int, ...]:
    """Return what the page's script counts: web texts, synthetic texts and images that two thresholds keep."""
    at = whatif.edges.index(own), whatif.edges.index(synthetic)
    lists = (whatif.corners[name] for name in ("web", "synthetic", "images"))
    return tuple(sum(n for i, j, n in corners if i >= at[0] and j >= at[1]) for corners in lists)


def selected(run, policy: Policy) -> tuple[int, int, int]:
    """Return the same by the policy itself."""
    web_texts = captions = images = 0
    for shard in run.plan():
        rows = [row for row in select(read_candidates(run, shard), policy).to_pylist() if row["kept"]]
        web_texts += sum(row["source"] == "web" for row in rows)
        captions += sum(row["source"] == "synthetic" for row in rows)
        images += len({row["position"] for row in rows})
    return web_texts, captions, images


MIXES = [
    *({"mix": name} for name in ("both", "web_else_synthetic", "best", "web_only", "synthetic_only", "weighted")),
    *({"mix": "top_k", "top_k": most} for most in (1, 2, 3, 9)),
    *({"mix": "weighted", "web_weight": weight, "seed": 5} for weight in (0.0, 0.2, 1.0)),
]


@pytest.mark.parametrize("rules", [{}, {"drop_duplicates": False}, {"web_itc": 0.0, "min_words": 2, "max_words": 300}])
def test_the_counts_are_those_of_the_policy_at_every_step(run, rules):
    with open_run(run.root, Policy(**rules)) as opened:
        whatif = what_if(opened, "web")

    for own in (0.0, 0.05, 0.285, 0.3, 0.45, 0.48, 0.5, 0.55, 0.6, 0.95, 1.0):
        for captions in (0.0, 0.2, 0.3, 0.305, 0.5, 0.7, 0.8, 1.0):
            policy = Policy(web_itm=own, synthetic_itm=captions, **rules)
            assert counted(whatif, own, captions) == selected(run, policy), (own, captions)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A run with and without own texts, up to four captions that repeat each other or it, and many equal scores."""
    run = new_run(tmp_path_factory.mktemp("drawn"), [replace(SHARD, samples=300)])
    chance = random.Random(7)
    candidates = []
    for n in range(300):
        scores = {text: chance.choice([0.0, 0.2, 0.4, 0.6, 0.8, 1.0]) for text in "abcd"}
        own = [chance.choice("abcd")] * (chance.random() < 0.8)
        candidates += [web(n, scores[text], text) for text in own]
        captions = [chance.choice("abcd") for _ in range(chance.randint(0, 4))]
        candidates += [synthetic(n, scores[text], text.upper(), index) for index, text in enumerate(captions)]
    complete(run, run.plan()[0], [record(n) for n in range(300)], candidates)
    return run


@pytest.mark.parametrize("rules", [*MIXES, {"mix": "top_k", "top_k": 2, "drop_duplicates": False}])
def test_every_mix_is_counted_as_the_policy_selects(drawn, rules):
    with open_run(drawn.root, Policy(**rules)) as opened:
        whatif = what_if(opened, "web")

    for own, captions in product((0.2, 0.5, 1.0), repeat=2):
        policy = Policy(web_itm=own, synthetic_itm=captions, **rules)
        assert counted(whatif, own, captions) == selected(drawn, policy), (own, captions)


def test_the_policys_own_thresholds_are_steps_too(run):
    policy = Policy(web_itm=0.4999, synthetic_itm=1 / 3)

    with open_run(run.root, policy) as opened:
        whatif = what_if(opened, "web")

    assert counted(whatif, 0.4999, 1 / 3) == selected(run, policy)
    assert tuple(map(whatif.kept, ("web", "synthetic", "images"))) == selected(run, policy)


def test_a_text_without_a_score_is_kept_at_no_step(tmp_path):
    run = new_run(tmp_path)
    complete(run, SHARD, [record(n) for n in range(4)], [web(0, None), synthetic(0, None), web(1, 0.0)])

    with open_run(run.root) as opened:
        whatif = what_if(opened, "web")

    assert (sum(whatif.counts["web"]), sum(whatif.counts["synthetic"])) == (1, 0)
