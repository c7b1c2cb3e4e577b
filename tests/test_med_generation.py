"""Writing captions: properties that hold for any weights, checked against full forward passes and full search."""

import pytest
import torch
from models import lively_checkpoint, sample
from torch import Tensor

from capfilt.config import Sampling
from capfilt.med import decoding, generation
from capfilt.med.attention import KeysValues
from capfilt.med.beam import beam_search
from capfilt.med.checkpoints import Checkpoint
from capfilt.med.decoding import next_logits
from capfilt.med.generation import Generated, logprobs
from capfilt.med.model import MED
from capfilt.med.sampling import uniforms

IMAGES = 6
PLAIN = Sampling(top_k=0, top_p=1.0, repetition_penalty=1.0)
GREEDY = Sampling(method="greedy", repetition_penalty=1.0)
BEAM = Sampling(method="beam", repetition_penalty=1.0, max_length=14)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Checkpoint:
    torch.set_num_threads(1)
    return lively_checkpoint(tmp_path_factory.mktemp("med"))


@pytest.fixture(scope="module")
def prompt(checkpoint: Checkpoint) -> list[int]:
    return [checkpoint.tokenizer.dec, *checkpoint.tokenizer.pieces("a picture of")]


@pytest.fixture(scope="module")
def write(checkpoint, prompt):
    """Return a function that writes captions of the images of some numbers."""

    def run(settings: Sampling, numbers: list[int] | range = range(IMAGES)) -> Generated:
        image, end = project(checkpoint, numbers), checkpoint.tokenizer.end
        if settings.method == "beam":
            return beam_search(checkpoint.model, image, prompt, end, settings)
        noise = uniforms(list(numbers), settings.captions, settings.max_length)
        return sample(checkpoint.model, image, prompt, end, settings, noise if settings.method == "nucleus" else None)

    return run


@torch.inference_mode()
def project(checkpoint: Checkpoint, numbers: list[int] | range) -> list[KeysValues]:
    images = [torch.randn(17, 32, generator=torch.Generator().manual_seed(number)) for number in numbers]
    return checkpoint.model.project_image(torch.stack(images))


@torch.inference_mode()
def steps(checkpoint: Checkpoint, row: Tensor, number: int) -> Tensor:
    """Return the log-probabilities of every next token, (T - 1, V), from one pass over a whole caption."""
    return checkpoint.model.decode(row[None, :-1], project(checkpoint, [number]))[0].log_softmax(1)


def captions(written: Generated, end: int) -> list[list[int]]:
    rows = written.ids.tolist()
    return [row[: row.index(end) + 1] if end in row else row for row in rows]


@pytest.mark.parametrize("settings", [Sampling(captions=2), GREEDY, BEAM], ids=lambda s: s.method)
def test_a_caption_does_not_depend_on_its_neighbours(write, settings):
    """Neither their content, nor their number, nor how early they end."""
    whole = write(settings)

    for number in range(IMAGES):
        alone = write(settings, [number])
        rows = slice(number * settings.captions, (number + 1) * settings.captions)
        assert alone.ids.tolist() == whole.ids[rows].tolist()
        torch.testing.assert_close(alone.logprobs, whole.logprobs[rows], rtol=0, atol=1e-4)
    assert len({tuple(row) for row in whole.ids.tolist()}) > IMAGES / 2  # the images do differ


@pytest.mark.parametrize("worth", [0.0, 1.0])
@pytest.mark.parametrize("each", [1, 4])
def test_finished_captions_leave_and_the_others_stay_as_they_are(write, each, worth, monkeypatch):
    """With worth 0 none leaves before all are done."""
    rows = []

    def counting(model: MED, ids: Tensor, *rest: object, **named: object) -> Tensor:
        rows.append(len(ids))
        return next_logits(model, ids, *rest, **named)

    settings = Sampling(captions=each, min_length=0)
    expected = write(settings)
    monkeypatch.setattr(generation, "next_logits", counting)
    monkeypatch.setattr(decoding, "MAX_OPEN", worth)

    found = write(settings)

    assert found.ids.equal(expected.ids)
    torch.testing.assert_close(found.logprobs, expected.logprobs, rtol=0, atol=1e-4)
    _prompt, *steps_ = rows
    assert steps_ == sorted(steps_, reverse=True)
    assert (steps_[-1] == IMAGES * each) == (worth == 0.0)


def test_each_caption_that_is_open_takes_one_step_for_a_token_and_none_is_taken_after_the_last_end(
    write, checkpoint, prompt, monkeypatch
):
    """The first token follows from the prompt, without a step."""
    rows = []

    def counting(model: MED, ids: Tensor, *rest: object, **named: object) -> Tensor:
        rows.append(len(ids))
        return next_logits(model, ids, *rest, **named)

    monkeypatch.setattr(generation, "next_logits", counting)
    monkeypatch.setattr(decoding, "MAX_OPEN", 1.0)
    settings = Sampling(min_length=0, max_length=36, top_k=0, top_p=1.0, temperature=1.5)

    written = captions(write(settings, [0, 2, 3, 4, 5]), checkpoint.tokenizer.end)

    lengths = [len(row) - len(prompt) for row in written]
    assert max(map(len, written)) < 36
    assert rows == [sum(length > step for length in lengths) for step in range(1, max(lengths))]


def test_where_looking_makes_the_device_wait_it_is_done_now_and_then(write, monkeypatch):
    settings = Sampling(captions=2, min_length=0)
    expected = write(settings)
    monkeypatch.setitem(generation.STEPS_PER_LOOK, "cpu", 4)
    found = write(settings)
    assert found.ids.equal(expected.ids)
    torch.testing.assert_close(found.logprobs, expected.logprobs, rtol=0, atol=1e-4)


@pytest.mark.parametrize("settings", [Sampling(captions=3), GREEDY, BEAM], ids=lambda s: s.method)
def test_a_row_is_the_prompt_then_tokens_then_the_end_then_padding(write, checkpoint, prompt, settings):
    end = checkpoint.tokenizer.end
    for row in write(settings).ids.tolist():
        assert row[: len(prompt)] == prompt
        assert len(row) == settings.max_length
        if end in row:
            assert set(row[row.index(end) + 1 :]) <= {0}


@pytest.mark.parametrize("method", ["nucleus", "greedy", "beam"])
@pytest.mark.parametrize(("least", "most"), [(0, 5), (4, 6), (5, 8), (8, 9), (9, 9), (9, 14)])
def test_a_model_that_would_end_at_once_ends_at_min_length(tmp_path, prompt, method, least, most):
    """Lengths count the prompt of 4 and not the end token, for which there is no room at max_length."""
    eager = lively_checkpoint(tmp_path)
    end = eager.tokenizer.end
    eager.model.text.head.bias.data[end] = 50.0
    settings = Sampling(method=method, min_length=least, max_length=most)
    arguments = eager.model, project(eager, range(3)), prompt, end, settings
    written = beam_search(*arguments) if method == "beam" else sample(*arguments, uniforms([1, 2, 3], 1, most))
    assert [len(row) for row in captions(written, end)] == [min(most, max(4, least) + 1)] * 3


def test_captions_do_end_by_themselves_so_the_tests_of_lengths_can_fail(write, checkpoint):
    lengths = {len(row) for row in captions(write(Sampling(captions=4, min_length=0)), checkpoint.tokenizer.end)}
    assert min(lengths) < 9 < 14 < max(lengths)


@pytest.mark.parametrize(
    "settings",
    [Sampling(captions=2), Sampling(captions=2, temperature=0.5, top_k=5), GREEDY, BEAM],
    ids=["nucleus", "cold", "greedy", "beam"],
)
def test_the_logprob_is_the_sum_over_the_generated_tokens_read_at_once(write, checkpoint, prompt, settings):
    """The model's own, without temperature, nucleus or penalty; the end token counts, the prompt does not."""
    written = write(settings)
    for i, row in enumerate(captions(written, checkpoint.tokenizer.end)):
        table = steps(checkpoint, torch.tensor(row), i // settings.captions)
        expected = sum(float(table[at - 1, row[at]]) for at in range(len(prompt), len(row)))
        assert written.logprobs[i].item() == pytest.approx(expected, abs=1e-3)


def test_logprobs_reads_written_captions_again(write, checkpoint, prompt):
    written = write(Sampling(captions=2))
    found = logprobs(
        checkpoint.model, project(checkpoint, range(IMAGES)), written.ids, len(prompt), checkpoint.tokenizer.end
    )
    torch.testing.assert_close(found, written.logprobs, rtol=0, atol=1e-3)


def test_greedy_takes_the_likeliest_token_at_every_step(write, checkpoint, prompt):
    for number, row in enumerate(
        captions(write(GREEDY.model_copy(update={"min_length": 0})), checkpoint.tokenizer.end)
    ):
        best = steps(checkpoint, torch.tensor(row), number).argmax(1).tolist()
        assert row[len(prompt) :] == best[len(prompt) - 1 :]


def test_greedy_is_nucleus_sampling_of_the_single_likeliest_token(write):
    assert torch.equal(write(GREEDY).ids, write(Sampling(top_k=1, repetition_penalty=1.0)).ids)


@torch.inference_mode()
@pytest.mark.parametrize("temperature", [1.0, 0.6, 2.0])
def test_every_token_is_the_one_that_its_noise_points_at(write, checkpoint, prompt, temperature):
    """In the nucleus after penalty, temperature and top-k, in this order; the noise is a share of the mass left."""
    settings = Sampling(top_k=5, top_p=0.8, repetition_penalty=1.5, temperature=temperature, min_length=8)
    noise = uniforms(list(range(IMAGES)), 1, settings.max_length)
    for number, row in enumerate(captions(write(settings), checkpoint.tokenizer.end)):
        logits = checkpoint.model.decode(torch.tensor([row[:-1]]), project(checkpoint, [number]))[0]
        for at in range(len(prompt), len(row)):
            scores = logits[at - 1].tolist()
            for word in set(row[:at]):
                scores[word] *= 1.5 if scores[word] < 0 else 1 / 1.5
            scores[checkpoint.tokenizer.end] -= torch.inf if at < 8 else 0
            scores, order = (torch.tensor(scores) / temperature).topk(5)
            shares = scores.softmax(0)
            shares = shares[shares.cumsum(0) - shares < 0.8]
            place = order.tolist().index(row[at])
            below = float(shares[:place].sum() / shares.sum())
            assert below - 1e-4 < noise[number, at] < below + float(shares[place] / shares.sum()) + 1e-4


def test_captions_of_an_image_differ_by_their_number(write):
    rows = write(Sampling(captions=4)).ids.view(IMAGES, 4, -1).tolist()
    assert all(len({tuple(row) for row in image}) == 4 for image in rows)


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_sampled_first_tokens_come_as_often_as_the_model_says(checkpoint, prompt, temperature):
    """4000 captions of one image against its distribution, four standard deviations wide."""
    image, count = project(checkpoint, [3]), 4000
    changes = {"captions": count, "max_length": len(prompt) + 1, "min_length": 0, "temperature": temperature}
    settings = PLAIN.model_copy(update=changes)
    written = sample(checkpoint.model, image, prompt, checkpoint.tokenizer.end, settings, uniforms([3], count, 20))
    shares = (steps(checkpoint, torch.tensor([*prompt, 0]), 3)[-1] / temperature).softmax(0)

    found = written.ids[:, -1].bincount(minlength=len(shares)) / count

    spread = (shares * (1 - shares) / count).sqrt()
    assert ((found - shares).abs() < 4 * spread + 1 / count).all()
