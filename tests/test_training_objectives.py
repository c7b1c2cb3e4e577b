"""What the jobs minimise, against sums written out and against what each role must leave alone."""

import math

import pytest
import torch
from models import lively_checkpoint
from torch import Tensor

from capfilt.config.momentum import MomentumSettings
from capfilt.med.checkpoints import Checkpoint
from capfilt.med.losses import contrastive_loss, language_loss, matching_loss
from capfilt.med.momentum import Features
from capfilt.med.vision import normalise
from capfilt.training.data import Batch
from capfilt.training.objectives import Captioning, Filtering, Pretraining, true_pairs

PROMPT = "a picture of "
SLOW = MomentumSettings(queue=12, alpha_ramp=0.0)


@pytest.fixture
def checkpoint(tmp_path) -> Checkpoint:
    torch.set_num_threads(1)
    return lively_checkpoint(tmp_path)


@pytest.fixture
def make(checkpoint):
    """Return a function that makes a batch of images with the given texts."""

    def run(*groups: list[str]) -> Batch:
        pixels = torch.randint(0, 256, (len(groups), 3, 32, 32), generator=torch.Generator().manual_seed(0))
        rows = [checkpoint.tokenizer.encode(text, checkpoint.tokenizer.cls, 30) for group in groups for text in group]
        return Batch(pixels.to(torch.uint8), *checkpoint.tokenizer.batch(rows), torch.arange(len(groups)))

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
    ids[:, 0] = checkpoint.tokenizer.enc
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
        model, tokenizer = checkpoint
        front = [tokenizer.dec, *tokenizer.pieces(PROMPT)]

        total, count = 0.0, 0
        for i in range(3):
            ids = torch.tensor([[*front, *batch.ids[i][batch.keep[i]].tolist()[1:]]])
            tower = model.encode_image(normalise(batch.pixels[i : i + 1]))
            logits = model.decode(ids, model.project_image(tower))
            each = language_loss(logits, ids, torch.ones_like(ids).bool(), reduction="none")[0, len(front) - 1 :]
            total, count = total + each.sum().item(), count + len(each)

        losses = Captioning(model, tokenizer, PROMPT)(batch, 0.0)
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

    def test_an_image_that_all_texts_belong_to_has_no_false_text(self, checkpoint, make):
        """And a text of all images no false image: the one false pair is of the second image and the second text."""
        batch = make(["a red dog", "two cats"], ["a red dog", "a red dog"])

        found = Filtering(*checkpoint)(batch, 0.0)["itm"].item()

        true = [itm(checkpoint, batch, row // 2, row).log_softmax(0)[1].item() for row in range(4)]
        false = itm(checkpoint, batch, 1, 1).log_softmax(0)[0].item()
        assert found == pytest.approx(-(sum(true) + 3 * false) / 7, rel=1e-5)  # two for the image, one for the text

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
        ids[:, 0] = checkpoint.tokenizer.dec
        model = checkpoint.model
        logits = model.decode(ids, model.project_image(model.encode_image(normalise(batch.pixels))))
        found = Pretraining(*checkpoint, 0.5)(batch, 0.0)["lm"]
        torch.testing.assert_close(found, language_loss(logits, ids, batch.keep))

    def test_several_texts_for_each_image_train_as_well(self, checkpoint, make):
        batch = make(["a dog", "red dog"], ["two cats", "b"], ["grass", "c d"])
        losses = Pretraining(*checkpoint, 0.0)(batch, 1.0)
        assert all(math.isfinite(loss.item()) for loss in losses.values())


def largest(weights: Tensor, count: int) -> Tensor:
    return weights.topk(count, dim=1).indices


def gradients(checkpoint: Checkpoint) -> dict[str, Tensor]:
    found = {name: p.grad for name, p in checkpoint.model.named_parameters() if p.grad is not None}
    checkpoint.model.zero_grad()
    return found


TEXTS = ["a red dog"], ["two cats on the grass"], ["b c d e"], ["a blue cat"]


class TestLevers:
    """What makes a step cheaper changes nothing but rounding."""

    def test_padding_costs_time_and_changes_nothing(self, checkpoint, make):
        batch = make(*TEXTS)
        padding = (0, 30 - batch.ids.shape[1])
        padded = batch._replace(
            ids=torch.nn.functional.pad(batch.ids, padding), keep=torch.nn.functional.pad(batch.keep, padding)
        )
        losses = [Pretraining(*checkpoint, 0.0, SLOW, choose=largest)(b, 0.0) for b in (batch, padded)]
        for name in ("lm", "itc", "itm"):
            torch.testing.assert_close(losses[0][name], losses[1][name], rtol=1e-5, atol=1e-6)

    def test_shared_keys_and_folded_passes_are_the_three_passes_one_by_one(self, checkpoint, make):
        """The plain form of ITM and LM: each pass projects its images anew, and each pair has a row of its own."""
        batch = make(["a red dog", "b"], ["two cats", "a cat on the grass"], ["c d", "e"])
        model, tokenizer = checkpoint
        chosen: list[Tensor] = []

        def choose(weights: Tensor, count: int) -> Tensor:
            chosen.append(largest(weights, count))
            return chosen[-1]

        losses = Pretraining(*checkpoint, 0.0, choose=choose)(batch, 0.0)
        (losses["itm"] + losses["lm"]).backward()
        found, (texts, images) = gradients(checkpoint), chosen

        rows, own = torch.arange(6), torch.arange(3).repeat_interleave(2)
        image = model.encode_image(normalise(batch.pixels))

        def logits(images: Tensor, texts: Tensor) -> Tensor:
            ids = batch.ids[texts].clone()
            ids[:, 0] = tokenizer.enc
            return model.match(ids, batch.keep[texts], model.project_image(image[images]))

        false = torch.cat([logits(own, texts.flatten()), logits(images[:, 0], rows)])
        itm = matching_loss(logits(own, rows), false, torch.ones(12).bool())
        ids = batch.ids.clone()
        ids[:, 0] = tokenizer.dec
        lm = language_loss(model.decode(ids, model.project_image(image[own])), ids, batch.keep)
        (itm + lm).backward()

        torch.testing.assert_close(losses["itm"], itm, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(losses["lm"], lm, rtol=1e-5, atol=1e-6)
        for name, gradient in gradients(checkpoint).items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-5)

    def test_fused_adamw_takes_the_steps_of_the_plain_loop(self, checkpoint, make):
        batch, ends = make(*TEXTS), []
        start = {name: tensor.clone() for name, tensor in checkpoint.model.state_dict().items()}
        for kernel in ("fused", "foreach"):
            checkpoint.model.load_state_dict(start)
            objective = Pretraining(*checkpoint, 0.0, choose=largest)
            kernels = {"fused": kernel == "fused", "foreach": False}
            optimiser = torch.optim.AdamW(checkpoint.model.parameters(), lr=1e-4, weight_decay=0.05, **kernels)
            sum(objective(batch, 0.0).values()).backward()
            for _ in range(3):
                optimiser.step()
            optimiser.zero_grad()
            ends.append({name: tensor.clone() for name, tensor in checkpoint.model.state_dict().items()})
        for name, tensor in ends[0].items():
            torch.testing.assert_close(tensor, ends[1][name], rtol=1e-5, atol=1e-7)
            assert not torch.equal(tensor, start[name]), name


class TestMomentum:
    def test_the_copies_move_before_they_are_asked_and_the_model_does_not(self, checkpoint, make):
        objective = Pretraining(*checkpoint, 0.0, SLOW)
        start = checkpoint.model.vision_proj.weight.clone()
        checkpoint.model.vision_proj.weight.data += 1.0
        objective(make(*TEXTS), 0.0)
        torch.testing.assert_close(objective.momentum.copy.vision_proj.weight.data, start + 0.005)
        torch.testing.assert_close(checkpoint.model.vision_proj.weight.data, start + 1.0)

    def test_the_features_of_a_batch_stand_in_the_queue_after_it(self, checkpoint, make):
        objective, batch = Filtering(*checkpoint, SLOW), make(*TEXTS)
        checkpoint.model.vision_proj.weight.data.mul_(-1)  # else the model's own are the same
        checkpoint.model.text_proj.weight.data.mul_(-1)
        objective(batch._replace(images=torch.tensor([7, 8, 9, 7])), 0.0)
        with torch.no_grad():
            slow = objective.momentum.features(normalise(batch.pixels), batch.ids, batch.keep)
        torch.testing.assert_close(objective.momentum.image_queue[:, :4], slow.image.T)
        torch.testing.assert_close(objective.momentum.text_queue[:, :4], slow.text.T)
        assert objective.momentum.images[:5].tolist() == [7, 8, 9, 7, -100]

    @pytest.mark.parametrize("kind", [Pretraining, Filtering])
    def test_negatives_resemble_the_copies_features_in_pre_training_and_the_models_own_in_retrieval(
        self, checkpoint, make, kind
    ):
        seen: list[Tensor] = []

        def choose(weights: Tensor, count: int) -> Tensor:
            seen.append(weights)
            return largest(weights, count)

        model, batch = checkpoint.model, make(*TEXTS)
        more = {"itm_warmup": 0.0} if kind is Pretraining else {}
        objective = kind(*checkpoint, momentum=SLOW, choose=choose, **more)
        model.vision_proj.weight.data.mul_(-1).add_(0.1)  # as far from its copy as no training takes it in a step
        model.text_proj.weight.data.add_(0.1)
        objective(batch, 0.0)

        pixels = normalise(batch.pixels)
        slow = objective.momentum.features(pixels, batch.ids, batch.keep)
        own = Features(model.image_features(model.encode_image(pixels)), model.text_features(batch.ids, batch.keep))
        others, floor = (slow, 1e-4) if kind is Pretraining else (own, 0.0)
        for found, similarity in zip(seen, (own.image @ others.text.T, own.text @ others.image.T), strict=True):
            expected = (similarity / model.temperature).softmax(1) + floor
            torch.testing.assert_close(found, expected.masked_fill(torch.eye(4).bool(), 0.0), rtol=1e-4, atol=1e-6)

    def test_itc_compares_with_the_copies_of_the_batch_and_the_queue_and_the_targets_soften_on_the_ramp(
        self, checkpoint, make
    ):
        model, batch = checkpoint.model, make(*TEXTS)
        objective = Pretraining(*checkpoint, 1.0, SLOW.model_copy(update={"alpha": 0.4, "alpha_ramp": 0.5}))
        texts, images = objective.momentum.text_queue.clone(), objective.momentum.image_queue.clone()

        found = objective(batch, 0.25)["itc"]

        pixels = normalise(batch.pixels)
        slow = objective.momentum.features(pixels, batch.ids, batch.keep)
        own = Features(model.image_features(model.encode_image(pixels)), model.text_features(batch.ids, batch.keep))

        def direction(one: Tensor, slow_one: Tensor, others: Tensor) -> Tensor:
            soft = (slow_one @ others / model.temperature).softmax(1)
            target = 0.2 * soft + 0.8 * torch.eye(4, 16)  # half of alpha in the middle of the ramp
            return -(target * (one @ others / model.temperature).log_softmax(1)).sum(1).mean()

        to_text = direction(own.image, slow.image, torch.cat([slow.text.T, texts], 1))
        to_image = direction(own.text, slow.text, torch.cat([slow.image.T, images], 1))
        torch.testing.assert_close(found, (to_text + to_image) / 2, rtol=1e-5, atol=1e-6)

    def test_the_seed_makes_the_first_entries_of_the_queues(self, checkpoint):
        one, again, other = (Filtering(*checkpoint, SLOW, seed=seed).momentum.image_queue for seed in (1, 1, 2))
        assert one.equal(again)
        assert not one.equal(other)

    def test_the_state_holds_all_there_is_to_resume(self, checkpoint, make):
        batch, first = make(*TEXTS), Pretraining(*checkpoint, 0.0, SLOW, choose=largest)
        first(batch, 0.0)
        again = Pretraining(*checkpoint, 0.0, SLOW, seed=5, choose=largest)
        again.load_state_dict(first.state_dict())
        a, b = first(batch, 0.5), again(batch, 0.5)
        assert all(torch.equal(a[name], b[name]) for name in a)

    def test_no_parameter_of_a_copy_is_trained(self, checkpoint):
        objective = Pretraining(*checkpoint, 0.0, SLOW)
        trained = {name for name, parameter in objective.named_parameters() if parameter.requires_grad}
        assert trained == {f"model.{name}" for name, _ in checkpoint.model.named_parameters()}

    def test_every_part_learns(self, checkpoint, make):
        sum(Pretraining(*checkpoint, 0.0, SLOW)(make(*TEXTS), 0.0).values()).backward()
        assert untouched(checkpoint) == set()

    def test_pre_training_knows_pairs_and_retrieval_knows_images(self, checkpoint, make):
        batch = make(*TEXTS)._replace(images=torch.tensor([5, 6, 5, 7]))
        numbers = torch.tensor([5, 6, 5, 7, 9, 5])
        pairs = Pretraining(*checkpoint, 0.0, SLOW).positives(batch, numbers, 0)
        images = Filtering(*checkpoint, SLOW).positives(batch, numbers, 0)
        assert pairs.tolist() == torch.eye(4, 6).bool().tolist()
        assert images[0].tolist() == [True, False, True, False, False, True]

    def test_pairs_of_a_later_rank_stand_behind_those_of_the_ranks_before(self, checkpoint, make):
        found = Pretraining(*checkpoint, 0.0, SLOW).positives(make(*TEXTS), torch.arange(12), first=4)
        assert found.nonzero().tolist() == [[0, 4], [1, 5], [2, 6], [3, 7]]

    def test_retrieval_never_takes_another_text_of_the_same_image_for_false(self, checkpoint, make):
        seen: list[Tensor] = []

        def choose(weights: Tensor, count: int) -> Tensor:
            seen.append(weights)
            return largest(weights, count)

        batch = make(*TEXTS)._replace(images=torch.tensor([5, 6, 5, 7]))
        Filtering(*checkpoint, SLOW, choose=choose)(batch, 0.0)
        for weights in seen:
            assert (weights == 0).nonzero().tolist() == [[0, 0], [0, 2], [1, 1], [2, 0], [2, 2], [3, 3]]

    @pytest.mark.parametrize("objective", [Filtering, lambda *a: Pretraining(*a[:2], 0.0, *a[2:])])
    @pytest.mark.parametrize("size", [1, 4])
    def test_a_batch_of_one_image_alone_has_no_false_pairs_and_is_scored_on_its_true_ones(
        self, checkpoint, make, objective, size
    ):
        batch = make(*TEXTS[:size])._replace(images=torch.full((size,), 3))
        losses = objective(*checkpoint, SLOW)(batch, 0.0)
        if size == 1 or "lm" not in losses:
            true = torch.stack([itm(checkpoint, batch, i, i) for i in range(size)])
            expected = matching_loss(true, true[:0], torch.ones(0).bool())
            torch.testing.assert_close(losses["itm"], expected, rtol=1e-5, atol=1e-6)
        assert all(math.isfinite(loss.item()) for loss in losses.values())

    @pytest.mark.parametrize(("before", "after"), [(0.7, 0.5), (0.0, 0.001), (0.1, 0.1)])
    @pytest.mark.parametrize("momentum", [None, SLOW])
    def test_the_temperature_is_put_back_into_its_range_before_it_is_used(
        self, checkpoint, make, before, after, momentum
    ):
        checkpoint.model.temperature.data.fill_(before)
        Filtering(*checkpoint, momentum)(make(*TEXTS), 0.0)
        assert checkpoint.model.temperature.item() == pytest.approx(after)


@pytest.mark.parametrize(
    ("kind", "momentum", "floor"), [(Pretraining, SLOW, 1e-4), (Filtering, None, 1e-4), (Filtering, SLOW, 0.0)]
)
def test_all_but_the_originals_retrieval_give_every_false_pair_a_least_weight(checkpoint, make, kind, momentum, floor):
    """At a low temperature the likeliest pair takes all of a softmax: what is left to the least likely is the floor."""
    seen: list[Tensor] = []

    def choose(weights: Tensor, count: int) -> Tensor:
        seen.append(weights)
        return largest(weights, count)

    checkpoint.model.temperature.data.fill_(0.001)
    more = {"itm_warmup": 0.0} if kind is Pretraining else {}
    kind(*checkpoint, momentum=momentum, choose=choose, **more)(make(*TEXTS), 0.0)
    for weights in seen:
        assert weights[~torch.eye(4).bool()].min().item() == pytest.approx(floor, rel=1e-3, abs=1e-9)


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

    def test_an_image_that_comes_twice_owns_the_texts_of_both(self, make):
        batch = make(["a dog"], ["two cats"], ["b"])._replace(images=torch.tensor([4, 5, 4]))
        assert true_pairs(batch).tolist() == [[True, False, True], [False, True, False], [True, False, True]]

    def test_a_text_that_begins_like_another_is_another(self, make):
        assert true_pairs(make(["a dog"], ["a dog on the grass"])).tolist() == [[True, False], [False, True]]
