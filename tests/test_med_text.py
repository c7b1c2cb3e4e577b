"""The text stack: properties that hold for any weights."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from models import lively_checkpoint
from torch import Tensor, nn

from capfilt.med import attention
from capfilt.med.attention import Heads
from capfilt.med.model import MED
from capfilt.med.ragged import Varlen
from capfilt.med.text import TextStack
from capfilt.med.unpadded import UnpaddedTexts

ROWS, LENGTH = 4, 6


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> MED:
    torch.set_num_threads(1)
    return lively_checkpoint(tmp_path_factory.mktemp("med")).model


@pytest.fixture
def ids() -> Tensor:
    return torch.randint(5, 24, (ROWS, LENGTH), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def image() -> Tensor:
    return torch.randn(2, 17, 32, generator=torch.Generator().manual_seed(2))  # of two images, for two texts each


def states(stack: TextStack, mode: str, ids: Tensor, keep: Tensor, image: Tensor) -> Tensor:
    projected = stack.project_image(image)
    if mode == "decode":
        return stack.decode(ids, projected)
    return stack.encode(ids, keep, projected if mode == "match" else None)


@pytest.mark.parametrize(
    ("mode", "unused"),
    [
        ("text", {"decoder_attn", "cross_attn", "head"}),
        ("match", {"decoder_attn", "head"}),
        ("decode", {"encoder_attn"}),
    ],
)
def test_only_self_attention_is_doubled(model, ids, image, mode, unused):
    """The gradient of each mode reaches every part that the mode shares, and no self-attention of the other role."""
    model.zero_grad()
    x = states(model.text, mode, ids, torch.ones_like(ids, dtype=torch.bool), image)
    (model.text.logits(x) if mode == "decode" else x).sum().backward()

    names = {name: p.grad for name, p in model.text.named_parameters()}
    untouched = {part for name, grad in names.items() if grad is None for part in name.split(".")[:3]}
    touched = {part for name, grad in names.items() if grad is not None for part in name.split(".")[:3]}
    assert unused <= untouched
    assert not unused & touched
    assert {"embeddings", "mlp"} <= touched


@torch.inference_mode()
@pytest.mark.parametrize("mode", ["text", "match", "decode"])
def test_padding_never_reaches_a_real_token(model, ids, image, mode):
    keep = torch.arange(LENGTH).expand(ROWS, -1) < torch.tensor([[3], [6], [1], [4]])
    changed = torch.where(keep, ids, (ids + 3) % 24)
    longer = torch.cat([ids, ids], dim=1)

    expected = states(model.text, mode, ids, keep, image)[keep]

    assert torch.equal(states(model.text, mode, changed, keep, image)[keep], expected)
    more = torch.cat([keep, torch.zeros_like(keep)], dim=1)
    found = states(model.text, mode, longer, more, image)[more]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def one_by_one(q: Tensor, keys: Tensor, values: Tensor, varlen: Varlen) -> Tensor:
    """Attention within groups of a list, as a GPU has it; what belongs to no group is no number."""
    found = torch.full_like(q, torch.nan)
    queries, seen = (list(pairwise(spans.cu_seqlens.tolist())) for spans in varlen)
    for (lo, hi), (first, end) in zip(queries, seen, strict=True):
        assert hi - lo <= varlen.queries.max_seqlen
        assert end - first <= varlen.seen.max_seqlen
        group = (each.transpose(0, 1) for each in (q[lo:hi], keys[first:end], values[first:end]))  # (H, L, K) each
        found[lo:hi] = F.scaled_dot_product_attention(*group).transpose(0, 1)
    return found


@torch.inference_mode()
@pytest.mark.parametrize("varlen", [False, True], ids=["padded", "varlen"])
@pytest.mark.parametrize("owners", [[0, 1, 2, 3], [0, 0, 0, 1], [0, 1, 1, 2], [1, 1, 1, 1]], ids=str)
@pytest.mark.parametrize("mode", ["text", "match"])
def test_encoding_without_padding_gives_the_first_states_of_the_padded_texts(
    model, ids, mode, owners, varlen, monkeypatch
):
    """For any number of texts an image, none included, and with padding that no text needs."""
    monkeypatch.setattr(attention, "varlen_attention", one_by_one)
    keep = torch.arange(LENGTH).expand(ROWS, -1) < torch.tensor([[3], [5], [1], [4]])
    images = torch.randn(5, 17, 32, generator=torch.Generator().manual_seed(2))
    of = torch.tensor(owners)
    projected = model.text.project_image(images) if mode == "match" else None

    unpadded = UnpaddedTexts.varlen(ids, keep, of, 5, 17) if varlen else UnpaddedTexts.of(ids, keep, of, 5)
    assert not varlen or (len(unpadded.ids), len(unpadded.starts)) == (512, 128)
    found = model.text.first_states(unpadded, projected)[:ROWS]

    expected = states(model.text, mode, ids, keep, images[of])[:, 0]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@torch.inference_mode()
@pytest.mark.parametrize(("mode", "causal"), [("text", False), ("match", False), ("decode", True)])
def test_only_decoding_hides_the_future(model, ids, image, mode, causal):
    keep = torch.ones_like(ids, dtype=torch.bool)
    changed = ids.clone()
    changed[:, 4] = (changed[:, 4] + 1) % 24

    before, after = (states(model.text, mode, x, keep, image) for x in (ids, changed))

    moved = (before - after).abs().amax(dim=(0, 2)) > 1e-3  # (L,)
    assert moved.tolist() == ([False] * 4 + [True] * 2 if causal else [True] * 6)


@torch.inference_mode()
@pytest.mark.parametrize("mode", ["match", "decode"])
def test_texts_that_share_an_image_give_what_copies_of_the_image_give(model, ids, image, mode):
    keep = torch.ones_like(ids, dtype=torch.bool)

    shared = states(model.text, mode, ids, keep, image)
    copied = states(model.text, mode, ids, keep, image.repeat_interleave(2, dim=0))

    torch.testing.assert_close(shared, copied, rtol=0, atol=1e-5)
    swapped = states(model.text, mode, ids, keep, image.flip(0))
    assert (shared - swapped).abs().max() > 0.1  # the image matters, so the comparison can fail


@torch.inference_mode()
@pytest.mark.parametrize("prompt", [1, 3, 5])
def test_decoding_token_by_token_gives_what_one_pass_gives(model, ids, image, prompt):
    stack, projected = model.text, model.text.project_image(image)
    caches = stack.caches(ROWS, LENGTH)

    parts = [stack.decode(ids[:, :prompt], projected, caches, 0)]
    parts += [stack.decode(ids[:, i : i + 1], projected, caches, i) for i in range(prompt, LENGTH)]

    torch.testing.assert_close(torch.cat(parts, dim=1), stack.decode(ids, projected), rtol=0, atol=1e-5)


@torch.inference_mode()
def test_a_reordered_cache_goes_on_with_what_the_other_row_has_seen(model, ids, image):
    stack, rows = model.text, torch.tensor([1, 1, 3, 2])  # within the texts of one image
    projected, caches = stack.project_image(image), stack.caches(ROWS, LENGTH)
    stack.decode(ids[:, :4], projected, caches, 0)
    for cache in caches:
        cache.reorder(rows)

    found = stack.decode(ids[:, 4:5], projected, caches, 4)

    whole = torch.cat([ids[rows, :4], ids[:, 4:5]], dim=1)
    torch.testing.assert_close(found, stack.decode(whole, projected)[:, 4:], rtol=0, atol=1e-5)


@torch.inference_mode()
def test_tokens_in_lumps_after_the_first_call_are_refused(model, ids, image):
    """The causal mask of a lump would begin at the wrong token."""
    caches = model.text.caches(ROWS, LENGTH)
    with pytest.raises(ValueError, match="2 tokens at position 3; after the first call give one at a time"):
        model.text.decode(ids[:, 3:5], model.text.project_image(image), caches, 3)


def test_a_text_longer_than_the_position_table_is_refused_with_both_lengths(model):
    with pytest.raises(ValueError, match="text has 41 tokens, the model takes 40"):
        model.text.encode(torch.ones(1, 41, dtype=torch.long), torch.ones(1, 41, dtype=torch.bool))


def test_the_output_matrix_is_the_word_embedding(model):
    x = torch.randn(3, 32, generator=torch.Generator().manual_seed(3))
    head = model.text.head
    hidden = torch.nn.functional.gelu(x @ head.dense.weight.T + head.dense.bias)
    normed = (hidden - hidden.mean(1, keepdim=True)) / (hidden.var(1, keepdim=True, correction=0) + 1e-12).sqrt()

    expected = normed @ model.text.embeddings.words.weight.T + head.bias

    torch.testing.assert_close(model.text.logits(x), expected, rtol=0, atol=1e-4)


@torch.inference_mode()
def test_a_text_that_is_longer_than_the_model_takes_is_refused(model):
    ids = torch.full((1, 41), 5)
    with pytest.raises(ValueError, match="41 tokens, the model takes 40"):
        model.text_features(ids, torch.ones_like(ids, dtype=torch.bool))


@pytest.mark.parametrize("mode", ["text", "match", "decode"])
@pytest.mark.parametrize("of_weights", [False, True], ids=["outputs", "weights"])
def test_dropout_falls_where_berts_does(model, ids, image, mode, of_weights):
    """On what each half adds, on the weights of attention, and on embeddings. Where all is dropped, little is left."""
    config = model.config.text.model_copy(update={"dropout": 0.25})
    stack = TextStack(config, image.shape[2], encoder=True, decoder=True).train()
    stack.load_state_dict(model.text.state_dict())
    for module in stack.modules():
        if isinstance(module, nn.Dropout):
            assert module.p == 0.25
            module.p = 0.0 if of_weights else 1.0
        if isinstance(module, Heads):
            assert module.attention_dropout == 0.25
            module.attention_dropout = 1.0 if of_weights else 0.0
    assert bool(stack.embeddings(ids).any()) == of_weights

    stack.embeddings.dropout.p = 0.0
    x = stack.embeddings(ids)
    for block in stack.blocks:
        own = block.decoder_attn if mode == "decode" else block.encoder_attn
        for part in [own] if mode == "text" else [own, block.cross_attn]:
            x = part.norm(x + part.out.bias if of_weights else x)
        x = block.mlp(x) if of_weights else block.mlp.norm(x)
    found = states(stack, mode, ids, torch.ones_like(ids, dtype=torch.bool), image)
    torch.testing.assert_close(found, x, rtol=0, atol=1e-5)
