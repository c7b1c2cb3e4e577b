"""Do both sides compute the same, and how far does another precision drift from float32?

The comparison goes through what a bootstrap calls: captions with their log-probabilities, P(match), ITC cosines; and
through the model that training uses, where logits show. Captions are words that are one token each, so their tokens
follow from their text and transformers can be made to read them.

Shapes: B images, R texts, L tokens, M image tokens, V vocabulary.
"""

import torch
from torch import Tensor
from versus_inputs import PROMPT, Inputs
from versus_sides import NEW, Ours, Side, Theirs, sampling

from capfilt.config import Sampling
from capfilt.med.checkpoints import load
from capfilt.med.vision import normalise

GREEDY = "greedy captions that differ"
CERTAIN = 1e-3  # P(match) nearer to 0 or 1 has too few digits to tell its logits


def check(ours: Ours, theirs: Theirs, inputs: Inputs, tolerance: float) -> dict[str, float]:
    """Return the largest differences, float32 against float32.

    Raises:
        SystemExit: one is over the tolerance, or a greedy caption is another one.
    """
    found = {**logits(ours, theirs, inputs), **captions(ours, theirs, inputs), **scores(ours, theirs, inputs)}
    # Not "over the tolerance", which a difference that is no number never is.
    wrong = {what: value for what, value in found.items() if not value <= (0 if what == GREEDY else tolerance)}
    if wrong:
        listed = "; ".join(f"{what}: {value:.1e}" for what, value in wrong.items())
        raise SystemExit(f"{ours.name} and {theirs.name} differ by more than --tolerance {tolerance}: {listed}")
    return found


@torch.inference_mode()
def logits(ours: Ours, theirs: Theirs, inputs: Inputs) -> dict[str, float]:
    """Return the largest differences of features and logits, both models as modules."""
    images, texts = normalise(inputs.pixels).to(theirs.device), [text for group in inputs.texts for text in group]
    each, found = len(inputs.texts[0]), {}
    model = load(ours.folders.captioner).model.to(theirs.device)
    seen = model.encode_image(images)  # (B, M, D)
    states = theirs.captioner.vision_model(images).last_hidden_state  # (B, M, D)
    found["vision features"] = _largest(seen, states)
    ids = read(theirs, texts)  # (R, L)
    expected = theirs.captioner.text_decoder(ids, encoder_hidden_states=states.repeat_interleave(each, 0)).logits
    found["LM logits"] = _largest(model.decode(ids, model.project_image(seen)), expected)  # (R, L, V)
    judge = load(ours.folders.filter).model.to(theirs.device)
    rows = theirs.marked(texts)
    image = judge.project_image(judge.encode_image(images))
    matched = judge.match(rows["input_ids"], rows["attention_mask"].bool(), image)  # (R, 2)
    found["ITM logits"] = _largest(matched, torch.cat(theirs.match(images, inputs.texts)))
    return found


def captions(ours: Ours, theirs: Theirs, inputs: Inputs) -> dict[str, float]:
    """Return the largest differences of log-probabilities in nats, and the number of other greedy captions."""
    found = {}
    for what, n, new in (("of a first word", 10, 1), ("of a word, mean of a caption", 4, NEW)):
        written = ours.captioner(sampling(n, new)).caption(inputs.pixels, range(len(inputs.pixels)))
        texts = [[caption.text for caption in group] for group in written]
        told = torch.tensor([[caption.logprob for caption in group] for group in written])  # (B, n)
        found[f"log-probability {what}"] = _largest(told, logprobs(theirs, inputs.pixels, texts)) / new
        if short := [caption for group in written for caption in group if caption.tokens != new]:
            raise SystemExit(f"{ours.name} wrote {short[0].tokens} tokens for {new}: {short[0].text!r}")
    likeliest = Sampling(**{**sampling(1).model_dump(), "method": "greedy"})
    greedy = ours.captioner(likeliest).caption(inputs.pixels, range(len(inputs.pixels)))
    expected = theirs.greedy(inputs.pixels)
    found[GREEDY] = sum(mine.text != text for (mine,), (text,) in zip(greedy, expected, strict=True))
    return found


@torch.inference_mode()
def logprobs(theirs: Theirs, pixels: Tensor, texts: list[list[str]]) -> Tensor:
    """Return what transformers says of captions, teacher-forced: log-probabilities (B, n), nats, the prompt's not."""
    states = theirs.captioner.vision_model(theirs.floats(pixels)).last_hidden_state  # (B, M, D)
    ids = read(theirs, [f"{' '.join(PROMPT)} {text}" for group in texts for text in group])  # (R, L)
    states = states.repeat_interleave(len(texts[0]), 0)
    each = theirs.captioner.text_decoder(ids, encoder_hidden_states=states).logits.float().log_softmax(dim=2)
    told = each[:, :-1].gather(2, ids[:, 1:, None]).squeeze(2)  # (R, L - 1)
    return told[:, len(PROMPT) :].sum(dim=1).view(len(texts), -1)  # (B, n)


def scores(ours: Ours, theirs: Theirs, inputs: Inputs) -> dict[str, float]:
    """Return the largest differences of the filter's numbers."""
    mine = ours.filter.score(inputs.pixels, inputs.texts)
    match = torch.tensor([[value.itm for value in group] for group in mine])  # (B, K)
    cosine = torch.tensor([[value.itc for value in group] for group in mine])  # (B, K)
    expected = torch.tensor(theirs.score(inputs.pixels, inputs.texts))  # (B, K)
    return {
        "log-odds of a match": _largest(match.logit(CERTAIN), expected.logit(CERTAIN)),
        "ITC cosine": _largest(cosine, cosines(theirs, inputs)),
    }


@torch.inference_mode()
def cosines(theirs: Theirs, inputs: Inputs) -> Tensor:
    """Return transformers' ITC cosines (B, K)."""
    images = theirs.floats(inputs.pixels)
    return torch.stack(
        [
            theirs.filter(pixel_values=image[None], use_itm_head=False, **theirs.tokens(texts)).itm_score[0]
            for image, texts in zip(images, inputs.texts, strict=True)
        ]
    ).float()


def read(theirs: Theirs, texts: list[str]) -> Tensor:
    """Return ids (R, L) as the decoder takes them, [DEC] first and without an end; short texts end in padding."""
    ids = theirs.ids(texts)[:, :-1]
    ids[:, 0] = theirs.processor.tokenizer.bos_token_id
    return ids


def spreads(side: Side, inputs: Inputs) -> dict[str, float]:
    """Return how far the log-odds of a match lie apart: were it little, equality would prove little."""
    odds = torch.tensor(side.score(inputs.pixels, inputs.texts)).logit(CERTAIN)  # (B, K)
    return {"over texts": float(odds.std(dim=1).mean()), "over images": float(odds.mean(dim=1).std())}


def drift(reference: Side, other: Side, inputs: Inputs, batch: int, threshold: float = 0.5) -> dict[str, float]:
    """Return how P(match) differs from the reference's, and the share of decisions at the threshold that change."""
    before, after = (torch.tensor(_all(side, inputs, batch)) for side in (reference, other))  # (N, K) each
    change = (after - before).abs()
    return {
        "pairs": before.numel(),
        "largest": float(change.max()),
        "mean": float(change.mean()),
        "changed_decisions": float(((before >= threshold) != (after >= threshold)).float().mean()),
    }


def _all(side: Side, inputs: Inputs, batch: int) -> list[list[float]]:
    cuts = range(0, len(inputs.texts), batch)
    return [row for i in cuts for row in side.score(inputs.pixels[i : i + batch], inputs.texts[i : i + batch])]


def _largest(found: Tensor, expected: Tensor) -> float:
    return float((found.cpu() - expected.cpu()).abs().max())
