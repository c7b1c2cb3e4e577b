import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from annotated import CAPTIONS, config, image_set, judge, write_set
from safetensors.torch import load_file
from torch import Tensor

from capfilt.config import Device, FilterSettings
from capfilt.config.evaluation import RetrievalSettings
from capfilt.evaluation.retrieval import (
    NOT_RANKED,
    encode_all,
    encode_texts,
    evaluate_retrieval,
    recalls,
    rerank,
    text_features,
)
from capfilt.evaluation.video import encode
from capfilt.filters.med import MEDFilter
from capfilt.med.checkpoints import Checkpoint
from capfilt.med.model import MED
from capfilt.med.published import from_published, infer_config
from capfilt.med.tokenizer import Tokenizer


class Reference(NamedTuple):
    meta: dict
    tensors: dict[str, Tensor]
    judge: MEDFilter


@pytest.fixture(scope="module")
def reference(shared: Path) -> Reference:
    """The original's numbers, and a filter with its weights."""
    folder = shared / "fixtures" / "a"
    meta, tensors = json.loads((folder / "meta.json").read_text()), load_file(folder / "tensors.safetensors")
    weights = from_published(load_file(folder / "pretrain_state.safetensors"), "fixture")
    model = MED(infer_config(weights, None, (meta["config"]["vh"], meta["config"]["ta"])))
    model.load_state_dict(weights)
    checkpoint = Checkpoint(model.eval(), Tokenizer(folder / "vocab.txt"))
    floats = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    return Reference(meta, floats, MEDFilter("fixture", checkpoint, FilterSettings(), Device(dtype="float32")))


def noise(reference: Reference, *names: str) -> float:
    """Ten times the difference that the reference itself shows between float32 and float64."""
    return 10 * sum(reference.meta["fp32_vs_fp64_max_abs_diff"][name] for name in names)


@pytest.mark.parametrize("per_pass", [1, 5, 256])
def test_scores_and_recalls_are_those_of_the_original(reference, per_pass):
    meta, tensors, judge = reference
    texts = encode_texts(judge, meta["reteval_texts"])
    tokens, features = encode(judge.model, tensors["in.reteval.pixel_values"][:, None])
    cosines = features @ text_features(judge, texts, per_pass).T
    ranking = rerank(judge, tokens, texts, cosines, RetrievalSettings(top_k=4, texts_per_pass=per_pass))

    close = {"rtol": 0, "atol": noise(reference, "itm_logits_enc", "itc_sim")}
    torch.testing.assert_close(ranking.texts, tensors["out.reteval.score_i2t_k4"], **close)
    torch.testing.assert_close(ranking.images, tensors["out.reteval.score_t2i_k4"], **close)
    own = torch.arange(len(texts.ids)) // 2 == torch.arange(len(tokens))[:, None]
    expected = meta["numbers"]["reteval_k4"]
    for way, found in (("txt", recalls(ranking.texts, own)), ("img", recalls(ranking.images, own.T))):
        names = {"r1": f"{way}_r1", "r5": f"{way}_r5", "r10": f"{way}_r10", "mean": f"{way}_r_mean"}
        assert {name: found[name] for name in names} == pytest.approx({n: expected[old] for n, old in names.items()})


def test_clips_have_the_features_and_logits_of_the_original(reference):
    meta, tensors, judge = reference
    tokens, features = encode(judge.model, tensors["in.video.frames"])
    torch.testing.assert_close(features, tensors["out.video.embed"], rtol=0, atol=noise(reference, "image_feat"))
    texts = encode_texts(judge, meta["captions"][: len(tokens)])
    none = torch.zeros(len(tokens), len(tokens))
    logits = rerank(judge, tokens, texts, none, RetrievalSettings()).texts.diag()
    expected = tensors["out.video.itm_logits"][:, 1]
    torch.testing.assert_close(logits, expected, rtol=0, atol=noise(reference, "itm_logits_enc"))


def each_pair(judge: MEDFilter, tokens: Tensor, texts: list[str]) -> Tensor:
    """Return the ITM logits (N, R, 2) of each image with each text, one pair after the other."""
    rows = [judge.tokenizer.batch([judge.tokenizer.encode(text, judge.tokenizer.enc, 35)]) for text in texts]
    projected = [judge.model.project_image(image[None]) for image in tokens]
    return torch.stack([torch.cat([judge.model.match(*row, image) for row in rows]) for image in projected])


@torch.inference_mode()
def test_the_papers_score_is_the_chance_of_a_match_alone(tmp_path):
    model, images = judge(tmp_path), image_set(config(write_set(tmp_path)))
    _, tokens, features = encode_all(model, images)
    flat = [caption for captions in CAPTIONS for caption in captions]
    texts = encode_texts(model, flat)
    cosines = features @ text_features(model, texts, 3).T
    found = rerank(model, tokens, texts, cosines, RetrievalSettings(top_k=100, score="match"))
    torch.testing.assert_close(found.texts.sigmoid(), each_pair(model, tokens, flat).softmax(dim=2)[..., 1])


@torch.inference_mode()
def test_ranking_is_matching_each_text_alone_with_each_image(tmp_path):
    """Grouping pairs by image, sorting texts by length and cutting passes change nothing but rounding."""
    model, images = judge(tmp_path), image_set(config(write_set(tmp_path)))
    numbers, tokens, features = encode_all(model, images)
    flat = [caption for captions in CAPTIONS for caption in captions]
    texts = encode_texts(model, flat)
    cosines = features @ text_features(model, texts, 3).T
    ranking = rerank(model, tokens, texts, cosines, RetrievalSettings(top_k=100, texts_per_pass=3))

    logits = each_pair(model, tokens, flat)[..., 1]
    assert numbers == [0, 1, 2, 3]
    assert logits.std() > 0.05
    torch.testing.assert_close(ranking.texts, logits + cosines, rtol=0, atol=1e-5)
    assert torch.equal(ranking.texts, ranking.images.T)


def test_the_keys_of_an_image_are_projected_once_for_all_its_texts(tmp_path, monkeypatch):
    model, images = judge(tmp_path), image_set(config(write_set(tmp_path)))
    _, tokens, features = encode_all(model, images)
    texts = encode_texts(model, [caption for captions in CAPTIONS for caption in captions])
    calls = []
    project = model.model.project_image
    monkeypatch.setattr(model.model, "project_image", lambda image: calls.append(image.shape) or project(image))
    rerank(model, tokens, texts, features @ text_features(model, texts, 8).T, RetrievalSettings(texts_per_pass=2))
    assert calls == [(1, *tokens.shape[1:])] * len(tokens)


def test_only_the_k_best_of_a_query_are_ranked(tmp_path):
    model, images = judge(tmp_path), image_set(config(write_set(tmp_path)))
    _, tokens, _ = encode_all(model, images)
    texts = encode_texts(model, [caption for captions in CAPTIONS for caption in captions])
    cosines = torch.rand(4, 8, generator=torch.Generator().manual_seed(0))
    ranking = rerank(model, tokens, texts, cosines, RetrievalSettings(top_k=2))
    for scores, first in ((ranking.texts, cosines), (ranking.images, cosines.T)):
        ranked = scores != NOT_RANKED
        assert ranked.sum(1).tolist() == [2] * len(scores)
        assert torch.equal(first.where(ranked, -1).sort(1).values[:, -2:], first.sort(1).values[:, -2:])


def test_a_query_counts_its_best_own_candidate():
    scores = torch.tensor([[0.1, 0.9, 0.8, *[0.0] * 9], [0.5, *[0.6] * 4, 0.1, *[0.0] * 6]])
    own = torch.zeros(2, 12, dtype=torch.bool)
    own[0, [0, 2]] = own[1, 5] = True  # ranks 2 and 6
    found = recalls(scores, own)
    assert found == {"r1": 0.0, "r5": 50.0, "r10": 100.0, "mean": 50.0, "median_rank": 4.0}


def test_ranks_are_those_of_the_originals_reversed_argsort():
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 4, (50, 13)).astype(np.float32)  # many equal scores
    owners = rng.integers(0, 13, 50)
    orders = [np.argsort(row, kind="stable")[::-1] for row in scores]
    expected = [int(np.where(order == own)[0][0]) for order, own in zip(orders, owners, strict=True)]
    found = recalls(torch.tensor(scores), torch.tensor(owners)[:, None] == torch.arange(13))
    assert found["r5"] == pytest.approx(100 * np.mean(np.array(expected) < 5))
    assert found["median_rank"] == np.median(expected) + 1


def test_what_cannot_be_decoded_is_left_out_with_its_texts(tmp_path):
    write_set(tmp_path)
    (tmp_path / "3.png").write_bytes(b"nothing")
    images = image_set(config(tmp_path))
    figures = evaluate_retrieval(judge(tmp_path), images)
    assert (figures["images"], figures["texts"]) == (3, 5)
    assert images.left_out == {"3.png": "not_an_image"}


def test_results_do_not_depend_on_the_batch(tmp_path):
    write_set(tmp_path)
    found = [
        evaluate_retrieval(judge(tmp_path), image_set(config(tmp_path, batch_size=size, retrieval=settings)))
        for size, settings in ((1, {"texts_per_pass": 1}), (4, {"texts_per_pass": 64}))
    ]
    assert found[0] == found[1]
