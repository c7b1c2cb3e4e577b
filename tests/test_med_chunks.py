"""The likeliest tokens of chunks against those of the whole vocabulary: on a GPU, or with kernels interpreted."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from capfilt.config import Sampling
from capfilt.med import generation
from capfilt.med.decoding import DecodingState
from capfilt.med.generation import CaptionGenerator
from capfilt.med.sampling import BANNED, CHUNK, ban, penalise

pytest.importorskip("triton", reason="Triton comes with torch's builds for GPUs")
from capfilt.med import chunks

KIND = "cuda" if torch.cuda.is_available() else "cpu"
WORDS = 100 * CHUNK  # which two blocks hold, the second of them in part
HALF = torch.bfloat16 if KIND == "cuda" else torch.float16  # NumPy, by which kernels are interpreted, has no bfloat16


def permuted(rows: int = 5, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return logits (R, V) of both signs, no two alike in a row, with words behind them that are never written."""
    generator = torch.Generator().manual_seed(1)
    logits = torch.stack([torch.randperm(WORDS, generator=generator).float() / 200 - 9 for _ in range(rows)])
    logits[:, -40:] = BANNED
    return logits.to(KIND, dtype)


def found(logits: Tensor, written: Tensor, penalty: float, banned: int | None, k: int) -> tuple[Tensor, Tensor]:
    """Return the k largest scores and their tokens, of all of them."""
    scores = penalise(logits.float(), written, penalty)
    return scores.topk(k, dim=1) if banned is None else ban(scores, banned).topk(k, dim=1)


@pytest.mark.parametrize("k", [1, 7, 50])
def test_the_likeliest_are_the_same(k):
    """Also where they are all in one chunk, and where each is in another one."""
    logits, written = permuted(), torch.zeros((5, 0), dtype=torch.long, device=KIND)
    logits[1, 3 * CHUNK : 4 * CHUNK] += 100.0
    logits[2, ::CHUNK] += 100.0
    values, ids, total = chunks.likeliest(logits, written, 1.0, None, k)
    expected, tokens = found(logits, written, 1.0, None, k)
    assert values.equal(expected)
    assert ids.equal(tokens)
    torch.testing.assert_close(total, logits.logsumexp(1), rtol=2e-7, atol=0)


@pytest.mark.parametrize("penalty", [1.3, 0.7])
@pytest.mark.parametrize("count", [1, 32, 40])
@pytest.mark.parametrize("banned", [None, "a likely one", "one written"])
def test_what_was_written_is_penalised_and_a_token_banned(penalty, count, banned):
    """Tokens of a row that are given out are others, best ones and random ones among them, each maybe twice."""
    logits, k = permuted(), 20
    logits[3, ::CHUNK] += 100.0  # so that each of the likeliest is in another chunk
    generator = torch.Generator().manual_seed(2)
    room = torch.randint(0, WORDS - 40, (5, 64), generator=generator).to(KIND)  # longer than what is written
    room[:, :40:2] = logits.topk(20, dim=1).indices
    room[:, 4] = room[:, 0]
    written = room[:, :count]
    likely = int(logits[3].topk(18).indices[17])  # written where 40 places are, and else not
    token = {None: None, "a likely one": likely, "one written": int(written[2, 0])}[banned]
    values, ids, total = chunks.likeliest(logits, written, penalty, token, k)
    expected, tokens = found(logits, written, penalty, token, k)
    torch.testing.assert_close(values, expected, rtol=3e-7, atol=0)
    assert ids.equal(tokens)
    torch.testing.assert_close(total, logits.logsumexp(1), rtol=2e-7, atol=0)  # of the logits as they are


def test_what_was_not_written_is_not_penalised_be_it_the_first_token():
    logits, written = permuted(), torch.full((5, 3), 7, device=KIND)
    logits[:, 0] = 99.0
    values, ids, _ = chunks.likeliest(logits, written, 1.3, None, 5)
    assert ids[:, 0].tolist() == [0] * 5
    assert values[:, 0].tolist() == [99.0] * 5


def test_a_row_is_the_same_to_the_bit_whatever_others_there_are():
    logits = permuted(dtype=HALF)
    written = torch.arange(15, device=KIND).view(5, 3)
    whole = chunks.likeliest(logits, written, 1.1, 7, 10)
    alone = chunks.likeliest(logits[3:4], written[3:4], 1.1, 7, 10)
    assert all(one.equal(all_[3:4]) for one, all_ in zip(alone, whole, strict=True))


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("top_p", [1.0, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, HALF])
def test_a_generator_draws_the_same_from_chunks(temperature, top_p, dtype):
    settings = Sampling(top_k=12, top_p=top_p, temperature=temperature, repetition_penalty=1.2)
    generator = CaptionGenerator(None, [0], 3, settings)  # type: ignore[arg-type]  # which no model is needed for
    logits = permuted(64, dtype)
    written = torch.arange(128, device=KIND).view(64, 2) * 7
    noise = torch.linspace(0.0, 0.999, 64, dtype=torch.float64, device=KIND)
    for banned in (None, 3):
        token, logprob = generator._draw_of_chunks(logits, written, banned, noise)
        expected = generator._choose(logits.float(), written, banned, noise)
        assert logits.gather(1, token[:, None]).equal(logits.gather(1, expected[:, None]))  # of equal ones either
        torch.testing.assert_close(logprob, -F.cross_entropy(logits.float(), token, reduction="none"))


@pytest.mark.parametrize("by_chunks", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, HALF])
def test_a_step_draws_by_the_noise_of_its_place_and_tells_the_log_probability_in_full_precision(
    by_chunks, dtype, monkeypatch
):
    monkeypatch.setattr(generation, "chunks_suit", lambda *_: by_chunks)
    settings = Sampling(top_k=12, repetition_penalty=1.2, min_length=0)
    generator = CaptionGenerator(None, [0, 7], 3, settings)  # type: ignore[arg-type]  # which no model is needed for
    logits = permuted(64, dtype)
    ids = torch.zeros((64, 5), dtype=torch.long, device=KIND)
    ids[:, 1] = 7
    noise = torch.rand((64, 5), dtype=torch.float64, generator=torch.Generator().manual_seed(3)).to(KIND)
    state = DecodingState.of([(logits, logits)], [], ids, noise, fixed=True)

    generator._write(state, logits, 2)

    expected = generator._choose(logits.float(), ids[:, :2], None, noise[:, 2])
    assert logits.gather(1, state.ids[:, 2:3]).equal(logits.gather(1, expected[:, None]))  # of equal ones either
    logprobs = logits.float().log_softmax(1).gather(1, state.ids[:, 2:3])[:, 0]
    torch.testing.assert_close(state.logprobs[:, 2], logprobs)
