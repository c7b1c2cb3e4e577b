"""The comparison with transformers: both sides compute the same, a difference is seen, and ratios are what they say."""

import json
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

pytest.importorskip("transformers", reason="transformers is not installed: the extra test has it")
sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))
from fakes import events
from versus_equality import GREEDY, check, drift
from versus_inputs import make_inputs, sizes, write_models, write_shard
from versus_report import compare, ratio
from versus_sides import NEW, Ours, Theirs
from versus_transformers import DOCUMENTED, main, measure
from versus_work import Operation, captioner_work, filter_work, image_work, profile_stages, stages, subtract_stages

from capfilt.captioners.med import MEDCaptioner
from capfilt.config import Device
from capfilt.filters.med import MEDFilter
from capfilt.med.checkpoints import load
from capfilt.med.inference import on_device
from capfilt.med.model import MED

CONFIG = sizes("tiny")
MEANS = {
    "captioner.vision_model.encoder.layers.1.mlp.fc1.weight": "vision features",
    "captioner.text_decoder.bert.encoder.layer.1.crossattention.self.value.weight": "LM logits",
    "filter.text_encoder.encoder.layer.0.crossattention.self.key.weight": "log-odds of a match",
    "filter.itm_head.weight": "ITM logits",
    "filter.text_proj.bias": "ITC cosine",
}


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def inputs():
    return make_inputs(CONFIG, 2)


@pytest.fixture(scope="module")
def folders(inputs, tmp_path_factory):
    return write_models(CONFIG, tmp_path_factory.mktemp("models"), inputs)


@pytest.fixture(scope="module")
def ours(folders):
    return Ours(folders, Device(dtype="float32"))


@pytest.fixture(scope="module")
def theirs(folders):
    return Theirs(folders, Device(dtype="float32"))


class TestEquality:
    def test_both_sides_give_the_same(self, ours, theirs, inputs):
        found = check(ours, theirs, inputs, 1e-4)

        assert found.pop(GREEDY) == 0
        assert {*MEANS.values(), "log-probability of a first word"} < found.keys()
        assert all(0 < value < 1e-4 for value in found.values())

    @pytest.mark.parametrize(("name", "meaning"), MEANS.items(), ids=MEANS.values())
    def test_a_weight_that_differs_is_seen(self, ours, theirs, inputs, name, meaning):
        part, _, name = name.partition(".")
        weight = getattr(theirs, part).get_parameter(name)
        before = weight.detach().clone()
        weight.data[0] *= 1.5

        with pytest.raises(SystemExit, match=rf"differ by more than --tolerance 0.0001: .*{meaning}: \d"):
            check(ours, theirs, inputs, 1e-4)

        weight.data.copy_(before)

    def test_a_captioner_that_ignores_the_image_is_seen_though_its_model_is_right(
        self, ours, theirs, inputs, monkeypatch
    ):
        caption = MEDCaptioner.caption
        monkeypatch.setattr(MEDCaptioner, "caption", lambda self, pixels, noise: caption(self, pixels * 0, noise))

        with pytest.raises(SystemExit, match=f": log-probability of a first word: .*; {GREEDY}: 2.0e[+]00$"):
            check(ours, theirs, inputs, 1e-4)

    def test_a_filter_that_ignores_the_image_is_seen_though_its_model_is_right(self, ours, theirs, inputs, monkeypatch):
        score = MEDFilter.score
        monkeypatch.setattr(MEDFilter, "score", lambda self, pixels, texts: score(self, pixels * 0, texts))

        with pytest.raises(SystemExit, match=r"0.0001: log-odds of a match: [^;]*; ITC cosine: [^;]*$"):
            check(ours, theirs, inputs, 1e-4)

    def test_a_difference_that_is_no_number_is_no_small_one(self, ours, theirs, inputs, monkeypatch):
        monkeypatch.setattr("versus_equality.cosines", lambda *_: torch.full((2, 11), float("nan")))

        with pytest.raises(SystemExit, match=r"0.0001: ITC cosine: nan$"):
            check(ours, theirs, inputs, 1e-4)

    def test_drift_counts_decisions_that_change(self, inputs):
        class Fixed:
            def __init__(self, *values: float) -> None:
                self.values = values

            def score(self, pixels, texts):
                return [list(self.values) for _ in texts]

        found = drift(Fixed(0.2, 0.5, 0.49, 0.9), Fixed(0.3, 0.4, 0.51, 0.8), inputs, batch=1)

        assert found == pytest.approx({"pairs": 8, "largest": 0.1, "mean": 0.08, "changed_decisions": 0.5})


class TestSides:
    def test_captions_are_equally_long_and_differ_between_images(self, ours, theirs, inputs):
        for side in (ours, theirs):
            captions = side.caption(inputs.pixels, 3)
            assert [[len(text.split()) for text in group] for group in captions] == [[NEW] * 3] * 2
            assert len({text for group in captions for text in group}) == 6

    def test_the_documented_way_gives_the_same_scores(self, theirs, inputs):
        documented = theirs.as_documented()

        assert documented.name == f"transformers float32{DOCUMENTED}"
        pairs, broadcast = (torch.tensor(side.score(inputs.pixels, inputs.texts)) for side in (documented, theirs))
        torch.testing.assert_close(pairs, broadcast, rtol=0, atol=1e-5)

    def test_a_shard_becomes_rows_on_both_sides(self, ours, theirs, inputs, tmp_path):
        tar = write_shard(inputs, tmp_path / "00000.tar")
        columns = ["key", "source", "itm"]
        rows = {}
        for side, out in ((ours, tmp_path / "ours"), (theirs, tmp_path / "theirs")):
            side.shard(tar, 2, 1, out)
            (file,) = out.rglob("*candidates.parquet")
            rows[side] = pq.read_table(file, columns=columns).to_pylist()

        kinds = [(row["key"], row["source"]) for row in rows[ours]]
        assert kinds == [(key, s) for key in ("000000", "000001") for s in ("web", "synthetic", "synthetic")]
        assert [(row["key"], row["source"]) for row in rows[theirs]] == kinds
        web = [[row["itm"] for row in rows[side] if row["source"] == "web"] for side in (ours, theirs)]
        assert web[0] == pytest.approx(web[1], abs=0.02)  # Pillow and capfilt resize a little differently


class TestRatios:
    def test_a_ratio_is_that_of_the_medians_with_the_quartiles_of_the_rounds(self):
        found = ratio([2.0, 4.0, 6.0, 8.0, 100.0], [1.0, 1.0, 3.0, 2.0, 10.0])
        # the rounds' own: 2, 4, 2, 4, 10
        assert found == {"ratio": 6.0 / 2.0, "low": 2.0, "high": 4.0, "rounds": 5}

    def test_rounds_that_one_side_left_out_do_not_count(self):
        assert ratio([9.0], [3.0, 100.0, 100.0]) == {"ratio": 3.0, "low": 3.0, "high": 3.0, "rounds": 1}

    def test_the_best_of_ours_stands_against_their_float32(self):
        seconds = {"capfilt float32": [2.0], "capfilt bfloat16": [1.0], "transformers float32": [6.0]}
        seconds |= {"transformers bfloat16": [3.0], f"transformers float32{DOCUMENTED}": [30.0]}

        assert {name: found["ratio"] for name, found in compare(seconds).items()} == {
            "float32 / float32": 3.0,
            "bfloat16 / bfloat16": 3.0,
            "best / float32": 6.0,
            "float32 / documented float32": 15.0,
            "best / documented float32": 30.0,
        }

    def test_sides_take_turns_and_each_begins_a_round(self):
        class Named:
            def __init__(self, name: str) -> None:
                self.name = name

        class Options:
            warmup, rounds, documented = 1, 3, 1

        taken: list[str] = []
        sides = [Named("a"), Named("b"), Named(f"c{DOCUMENTED}")]
        seconds = measure(lambda side: taken.append(side.name[0]), sides, Options())

        assert "".join(taken) == "ab" + "abc" + "ba" + "ab"  # the warm-up first; c takes part in one round
        assert {name: len(rounds) for name, rounds in seconds.items()} == {"a": 3, "b": 3, f"c{DOCUMENTED}": 1}


class TestWork:
    def test_operations_are_those_that_torch_counts(self, folders):
        model, judge = load(folders.captioner).model, load(folders.filter).model
        for block in model.vision.vit.blocks:
            block.attn.fused_attn = False  # the counter knows no fused attention on CPUs
        with torch.inference_mode():
            with FlopCounterMode(display=False) as vision:
                image = model.encode_image(torch.zeros(1, 3, 32, 32))
            with FlopCounterMode(display=False) as keys:
                judge.project_image(image)

        assert image_work(CONFIG) == {"vision": vision.get_total_flops(), "keys": keys.get_total_flops()}

    def test_operations_at_full_size_are_those_worked_out_by_hand(self):
        base = sizes("base")
        giga = {n: {stage: count / 1e9 for stage, count in captioner_work(base, n).items()} for n in (1, 4, 10)}

        assert giga[1] == pytest.approx({"vision": 110.97, "keys": 16.34, "text": 6.02}, abs=0.01)
        assert [giga[n]["text"] for n in (4, 10)] == pytest.approx([21.44, 52.29], abs=0.01)
        one = filter_work(base, [16])["text"] / 1e9
        assert one == pytest.approx(3.51 * 11 / 12 + 0.06, abs=0.01)  # the last block: keys, values and one token
        assert filter_work(base, [16] * 3)["text"] / 1e9 == pytest.approx(3 * one)

    def test_a_trace_is_cut_at_norms_look_ups_and_products_with_the_vocabulary(self):
        operations = [
            Operation("all", [], 0, 100e6),
            Operation("aten::linear", [[17, 64], [128, 64]], 1e6, 8e6),
            Operation("aten::layer_norm", [[1, 17, 64]], 8e6, 10e6),
            Operation("aten::linear", [[17, 64], [64, 64]], 11e6, 15e6),
            Operation("aten::embedding", [[204, 64], [1, 4]], 16e6, 17e6),
            Operation("aten::layer_norm", [[1, 4, 64]], 17e6, 18e6),
            Operation("mkldnn::_linear_pointwise", [[1, 64], [204, 64]], 30e6, 40e6),
            Operation("aten::topk", [[1, 204]], 41e6, 45e6),
            Operation("aten::embedding", [[204, 64], [1, 1]], 46e6, 47e6),
            Operation("aten::linear", [[1, 64], [204, 64]], 60e6, 70e6),
        ]
        assert stages(operations, 204) == {"vision": 10.0, "keys": 6.0, "text": 48.0, "sampling": 36.0}

    def test_a_real_call_has_all_stages(self, ours, inputs):
        seconds = profile_stages(partial(ours.caption, inputs.pixels, 2), CONFIG.text.vocabulary, repeats=1)

        assert list(seconds) == ["vision", "keys", "text", "sampling"]
        assert all(value > 0 for value in seconds.values())

    def test_a_call_on_a_gpu_is_cut_by_its_parts(self, ours, inputs, monkeypatch):
        judge, taken = ours.matcher, iter([5.0, 1.0, 8.0])

        def seconds(part: Callable[[], object], device: str, repeats: int) -> float:
            part()
            return next(taken)

        monkeypatch.setattr("versus_work._seconds", seconds)
        happened = events(monkeypatch, (MED, "encode_image"), (MED, "project_image"), (MEDFilter, "score"))
        pixels, call = on_device(inputs.pixels, judge.device), partial(ours.score, inputs.pixels, inputs.texts)
        assert subtract_stages(judge.model, pixels, call) == {"vision": 5.0, "keys": 1.0, "text": 2.0}
        assert happened[1:4] == ["encode_image", "project_image", "score"]  # the first gives the keys their image


def test_the_whole_benchmark_prints_json_and_a_table(capsys):
    once = ["--rounds", "1", "--warmup", "0", "--drift-images", "2", "--shard-images", "1", "--profile", "0"]
    main(["--tiny", "--cases", "both-1", "itm-4", *once])

    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert list(found["cases"]) == ["both-1", "itm-4"]
    for case in found["cases"].values():
        assert {name: len(rounds) for name, rounds in case["seconds"].items()} == {
            f"{side} {dtype}": 1 for side in ("capfilt", "transformers") for dtype in ("float32", "bfloat16")
        } | {f"transformers float32{DOCUMENTED}": 1}
        fast, slow = case["seconds"]["capfilt float32"], case["seconds"]["transformers float32"]
        assert case["ratios"]["float32 / float32"]["ratio"] == slow[0] / fast[0]
    assert found["drift"].keys() == {"capfilt float32", "capfilt bfloat16", "transformers bfloat16"}
    assert {"machine", "threads", "versions", "date", "differences", "matrix_rates"} < found.keys()
    assert re.search(r"(?m)^  best / documented float32 +\d+\.\d\d \(one round\)$", printed.err)


def test_the_drift_can_be_left_out(capsys):
    once = ["--rounds", "1", "--warmup", "0", "--drift-images", "0", "--shard-images", "1", "--profile", "0"]
    main(["--tiny", "--cases", "itm-1", *once])
    found = json.loads(capsys.readouterr().out)
    assert found["drift"] == {}
    assert list(found["cases"]) == ["itm-1"]
