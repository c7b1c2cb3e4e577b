"""What the jobs minimise, against sums written out and against what each role must leave alone."""

import math

import pytest
import torch
from models import lively_checkpoint
from torch import Tensor

from capfilt.med.checkpoints import Checkpoint
from capfilt.med.losses import contrastive_loss, language_loss
from capfilt.med.vision import normalise
from capfilt.training.data import Batch
from capfilt.training.objectives import Captioning, Filtering, Pretraining, true_pairs

PROMPT = "a picture of "


@pytest.fixture
def checkpoint(tmp_path) -> Checkpoint:
    torch.set_num_threads(1)
    return lively_checkpoint(tmp_path)


@pytest.fixture
def make(checkpoint):
    """Return a function that makes a batch of images with the given texts."""

    def run(*groups: list[str]) -> Batch:
        pixels = torch.randint(0, 256, (len(groups), 3, 32, 32), generator=torch.Generator().manual_seed(0))
        rows = [checkpoint.tokens.encode(text, checkpoint.tokens.cls, 30) for group in groups for text in group]
        return Batch(pixels.to(torch.uint8), *checkpoint.tokens.batch(rows), torch.arange(len(groups)))

    return run


def one(batch: Batch, image: int, row: int) -> Batch:
    """Return a single pair without its padding."""
    keep = batch.keep[row]
    here = slice(image, image + 1)
    return Batch(
        batch.pixels[here], batch.ids[row : row + 1, keep], batch.keep[row : row + 1, keep], batch.images[here]
    )


def itm(checkpoint: Checkpoint, batch: Batch, image: int, row: int) -> Tensor:
    """Return the ITM logits of one pair, computed alone."""
    pair = one(batch, image, row)
    ids = pair.ids.clone()
    ids[:, 0] = checkpoint.tokens.enc
    tokens = checkpoint.model.encode_image(normalise(pair.pixels))
    return checkpoint.model.match(ids, pair.keep, checkpoint.model.project_image(tokens))[0]


def untouched(checkpoint: Checkpoint) -> set[str]:
    """Return the parts of the model that no gradient reached."""
    return {
        next(part for part in ("encoder_attn", "decoder_attn", "head", name.split(".")[0]) if part in name.split("."))
        for name, parameter in checkpoint.model.named_parameters()
        if parameter.grad is None
    }


class TestCaptioning:
    def test_it_is_the_mean_over_all_tokens_behind_the_prompt(self, checkpoint, make):
        batch = make(["a red dog"], ["two cats on the grass"], ["b"])
        model, tokens = checkpoint
        front = [tokens.dec, *tokens.pieces(PROMPT)]

        total, count = 0.0, 0
        for i in range(3):
            ids = torch.tensor([[*front, *batch.ids[i][batch.keep[i]].tolist()[1:]]])
            tower = model.encode_image(normalise(batch.pixels[i : i + 1]))
            logits = model.decode(ids, model.project_image(tower))
            each = language_loss(logits, ids, torch.ones_like(ids).bool(), reduction="none")[0, len(front) - 1 :]
            total, count = total + each.sum().item(), count + len(each)

        losses = Captioning(model, tokens, PROMPT)(batch, 0.0)
        assert list(losses) == ["lm"]
        assert losses["lm"].item() == pytest.approx(total / count, rel=1e-5)

    def test_it_leaves_the_filters_parts_alone(self, checkpoint, make):
        Captioning(*checkpoint, PROMPT)(make(["a dog"], ["two cats"]), 0.0)["lm"].backward()
        assert untouched(checkpoint) == {"encoder_attn", "vision_proj", "text_proj", "itm_head", "temperature"}


class TestFiltering:
    def test_with_two_pairs_the_negatives_are_forced_and_itm_is_their_sum(self, checkpoint, make):
        batch = make(["a red dog"], ["two cats on the grass"])

        found = Filtering(*checkpoint)(batch, 0.0)["itm"].item()

        true = [itm(checkpoint, batch, i, i).log_softmax(0)[1].item() for i in range(2)]
        false = [itm(checkpoint, batch, i, 1 - i).log_softmax(0)[0].item() for i in range(2)]
        assert found == pytest.approx(-(sum(true) + 2 * sum(false)) / 6, rel=1e-5)

    def test_itc_is_the_loss_of_the_features_of_the_single_pairs(self, checkpoint, make):
        batch = make(["a red dog", "b"], ["two cats", "a cat on the grass"])
        model = checkpoint.model
        images = torch.cat([model.image_features(model.encode_image(normalise(p[None]))) for p in batch.pixels])
        texts = torch.cat([model.text_features(*one(batch, 0, row)[1:3]) for row in range(4)])
        positive = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 1]]).bool()

        found = Filtering(*checkpoint)(batch, 0.0)["itc"]

        expected = contrastive_loss(images, texts, model.temperature, positive)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)

    def test_it_leaves_the_captioners_parts_alone(self, checkpoint, make):
        losses = Filtering(*checkpoint)(make(["a dog"], ["two cats"]), 0.0)
        sum(losses.values()).backward()
        assert list(losses) == ["itc", "itm"]
        assert untouched(checkpoint) == {"decoder_attn", "head"}

    def test_the_choice_of_negatives_is_no_part_of_the_gradient(self, checkpoint, make):
        """ITM must not reach the contrastive heads through the similarity that picks its negatives."""
        Filtering(*checkpoint)(make(["a dog"], ["two cats"]), 0.0)["itm"].backward()
        assert {"vision_proj", "text_proj", "temperature"} <= untouched(checkpoint)


class TestPretraining:
    def test_it_is_the_three_losses_and_itm_joins_when_it_is_told_to(self, checkpoint, make):
        losses = Pretraining(*checkpoint, itm_warmup=0.25)
        batch = make(["a dog"], ["two cats"])
        names = [list(losses(batch, done)) for done in (0.0, 0.24, 0.25, 1.0)]
        assert names == [["lm", "itc"], ["lm", "itc"], ["lm", "itc", "itm"], ["lm", "itc", "itm"]]

    def test_every_part_learns(self, checkpoint, make):
        losses = Pretraining(*checkpoint, 0.0)(make(["a dog"], ["two cats"]), 0.0)
        sum(losses.values()).backward()
        assert untouched(checkpoint) == set()

    def test_without_a_prompt_every_token_is_scored(self, checkpoint, make):
        batch = make(["a red dog on the grass"])
        ids = batch.ids.clone()
        ids[:, 0] = checkpoint.tokens.dec
        model = checkpoint.model
        logits = model.decode(ids, model.project_image(model.encode_image(normalise(batch.pixels))))
        found = Pretraining(*checkpoint, 0.5)(batch, 0.0)["lm"]
        torch.testing.assert_close(found, language_loss(logits, ids, batch.keep))

    def test_several_texts_for_each_image_train_as_well(self, checkpoint, make):
        batch = make(["a dog", "red dog"], ["two cats", "b"], ["grass", "c d"])
        losses = Pretraining(*checkpoint, 0.0)(batch, 1.0)
        assert all(math.isfinite(loss.item()) for loss in losses.values())


class TestTruePairs:
    def test_an_image_owns_its_texts(self, make):
        found = true_pairs(make(["a dog", "red dog"], ["two cats", "b"]))
        assert found.tolist() == [[True, True, False, False], [False, False, True, True]]

    def test_a_text_that_two_images_share_is_a_negative_of_neither(self, make):
        found = true_pairs(make(["a dog", "b"], ["two cats", "a dog"], ["c", "d"]))
        assert found.tolist() == [
            [True, True, False, True, False, False],
            [True, False, True, True, False, False],
            [False, False, False, False, True, True],
        ]

    def test_a_text_that_begins_like_another_is_another(self, make):
        assert true_pairs(make(["a dog"], ["a dog on the grass"])).tolist() == [[True, False], [False, True]]
