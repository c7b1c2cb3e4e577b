"""Each loss against its sum written out, and the draw of hard negatives against its distribution."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from capfilt.med.losses import (
    contrastive_loss,
    distilled_loss,
    draw,
    has_negative,
    language_loss,
    matching_loss,
    negative_weights,
    similarities,
)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def features(count: int, generator: torch.Generator) -> Tensor:
    return F.normalize(torch.randn(count, 8, generator=generator), dim=1)


def log_share(scores: list[float], index: int) -> float:
    return scores[index] - math.log(sum(map(math.exp, scores)))


class TestContrastive:
    def test_it_is_the_mean_of_both_directions_with_even_targets(self, generator):
        image, text, temperature = features(3, generator), features(4, generator), 0.2
        positive = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 0], [0, 1, 0, 1]], dtype=torch.bool)
        score = [[float(i @ t) / temperature for t in text] for i in image]

        to_text = -sum(
            log_share(score[b], r) / int(positive[b].sum()) for b in range(3) for r in range(4) if positive[b, r]
        )
        to_image = -sum(
            log_share([row[r] for row in score], b) / int(positive[:, r].sum())
            for b in range(3)
            for r in range(4)
            if positive[b, r]
        )

        found = contrastive_loss(image, text, temperature, positive)
        assert found.item() == pytest.approx((to_text / 3 + to_image / 4) / 2, rel=1e-5)

    def test_features_that_say_nothing_cost_the_logarithm_of_the_batch(self):
        same = torch.ones(5, 4) / 2
        assert contrastive_loss(same, same, 0.07, torch.eye(5).bool()).item() == pytest.approx(math.log(5), rel=1e-5)

    def test_perfect_features_cost_nothing(self):
        assert contrastive_loss(torch.eye(5), torch.eye(5), 0.01, torch.eye(5).bool()).item() < 1e-6

    def test_the_order_of_the_pairs_does_not_matter(self, generator):
        image, text, order = features(6, generator), features(6, generator), torch.randperm(6, generator=generator)
        eye = torch.eye(6).bool()
        found = contrastive_loss(image[order], text[order], 0.1, eye)
        torch.testing.assert_close(found, contrastive_loss(image, text, 0.1, eye))

    def test_a_table_of_another_shape_is_refused(self, generator):
        image, text = features(3, generator), features(4, generator)
        with pytest.raises(ValueError, match=r"positive has shape \(4, 3\), not \(3, 4\): images by texts"):
            contrastive_loss(image, text, 0.1, torch.ones(4, 3, dtype=torch.bool))


class TestDistilled:
    def test_its_targets_mix_the_copies_distribution_with_even_labels(self, generator):
        logits, copies, alpha = torch.randn(2, 3, generator=generator), torch.randn(2, 3, generator=generator), 0.3
        positive = torch.tensor([[1, 0, 1], [0, 1, 0]], dtype=torch.bool)

        total = 0.0
        for row in range(2):
            for column in range(3):
                soft = math.exp(log_share(copies[row].tolist(), column))
                label = int(positive[row, column]) / int(positive[row].sum())
                total -= (alpha * soft + (1 - alpha) * label) * log_share(logits[row].tolist(), column)

        assert distilled_loss(logits, copies, positive, alpha).item() == pytest.approx(total / 2, rel=1e-5)

    def test_without_alpha_it_is_one_direction_of_the_plain_loss(self, generator):
        image, text = features(4, generator), features(4, generator)
        logits = similarities(image, text.T, 0.1)
        both = [distilled_loss(table, torch.randn(4, 4), torch.eye(4).bool(), 0.0) for table in (logits, logits.T)]
        torch.testing.assert_close(sum(both) / 2, contrastive_loss(image, text, 0.1, torch.eye(4).bool()))

    def test_the_targets_get_no_gradient(self, generator):
        logits = torch.randn(2, 3, generator=generator, requires_grad=True)
        copies = torch.randn(2, 3, generator=generator, requires_grad=True)
        distilled_loss(logits, copies, torch.ones(2, 3).bool(), 0.4).backward()
        assert logits.grad is not None
        assert copies.grad is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_similarities_keep_float32_under_autocast(generator, dtype):
    image, text = features(3, generator).to(dtype), features(5, generator).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        found = similarities(image, text.T, 0.07)
    assert torch.equal(found, image.float() @ text.float().T / 0.07)


def test_logits_of_bfloat16_cost_what_they_say_and_are_not_rounded_again(generator):
    """The type that heads give under autocast."""
    pairs, usable = torch.randn(2, 4, 2, generator=generator).bfloat16(), torch.ones(4).bool()
    assert matching_loss(*pairs, usable) == matching_loss(*pairs.float(), usable)
    words, ids = torch.randn(2, 5, 7, generator=generator).bfloat16(), torch.ones(2, 5).long()
    assert language_loss(words, ids, ids.bool()) == language_loss(words.float(), ids, ids.bool())


class TestMatching:
    def test_it_is_the_mean_over_true_and_false_pairs(self):
        positive, negative = torch.tensor([[0.5, 2.0]]), torch.tensor([[1.0, -1.0], [0.0, 3.0]])
        each = [-log_share([0.5, 2.0], 1), -log_share([1.0, -1.0], 0), -log_share([0.0, 3.0], 0)]
        found = matching_loss(positive, negative, torch.tensor([True, True]))
        assert found.item() == pytest.approx(sum(each) / 3, rel=1e-6)

    def test_class_one_means_match(self):
        sure, usable = torch.tensor([[-20.0, 20.0]]), torch.tensor([True])
        assert matching_loss(sure, -sure, usable).item() < 1e-6
        assert matching_loss(-sure, sure, usable).item() > 30

    def test_pairs_that_stand_in_for_missing_false_ones_are_not_scored(self):
        positive, negative = torch.tensor([[0.5, 2.0]]), torch.tensor([[1.0, -1.0], [0.0, 3.0]])
        found = matching_loss(positive, negative, torch.tensor([True, False]))
        assert found == matching_loss(positive, negative[:1], torch.tensor([True]))


class TestLanguage:
    WORDS = 7

    @pytest.fixture
    def batch(self, generator) -> tuple[Tensor, Tensor, Tensor]:
        ids = torch.randint(0, self.WORDS, (2, 5), generator=generator)
        keep = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], dtype=torch.bool)
        return torch.randn(2, 5, self.WORDS, generator=generator), ids, keep

    def written_out(self, logits: Tensor, ids: Tensor, places: list[tuple[int, int]]) -> float:
        """Return the mean loss, smoothed by 0.1, of the tokens at places (row, position)."""
        each = []
        for row, at in places:
            scores = logits[row, at - 1].tolist()
            shares = [log_share(scores, word) for word in range(self.WORDS)]
            uniform = sum(shares) / self.WORDS
            each.append(-0.9 * shares[ids[row, at]] - 0.1 * uniform)
        return sum(each) / len(each)

    @pytest.mark.parametrize(
        ("prompt", "places"),
        [
            (0, [(0, 1), (0, 2), (0, 3), (0, 4), (1, 1), (1, 2)]),
            (1, [(0, 1), (0, 2), (0, 3), (0, 4), (1, 1), (1, 2)]),
            (2, [(0, 2), (0, 3), (0, 4), (1, 2)]),
        ],
    )
    def test_each_token_behind_the_prompt_is_predicted_from_those_before_it(self, batch, prompt, places):
        logits, ids, keep = batch
        found = language_loss(logits, ids, keep, prompt)
        assert found.item() == pytest.approx(self.written_out(logits, ids, places), rel=1e-5)

    def test_padding_and_prompt_change_nothing(self, batch):
        logits, ids, keep = batch
        other, words, before = logits.clone(), ids.clone(), keep.clone()
        other[1, 2:] += 5.0  # predicts padding
        other[:, 0] -= 5.0  # predicts the prompt's last token
        words[1, 3:] = (words[1, 3:] + 1) % self.WORDS
        words[:, :2] = (words[:, :2] + 1) % self.WORDS

        assert language_loss(other, words, keep, prompt=2) == language_loss(logits, ids, keep, prompt=2)
        assert keep.equal(before)

    def test_token_by_token_it_has_zeros_where_nothing_is_scored(self, batch):
        each = language_loss(*batch, prompt=2, reduction="none")

        assert (each != 0).tolist() == [[False, True, True, True], [False, True, False, False]]
        assert each.sum().item() / 4 == pytest.approx(language_loss(*batch, prompt=2).item(), rel=1e-6)


class TestNegativeWeights:
    def test_they_are_the_softmax_and_the_floor_without_the_positives(self):
        similarity = torch.tensor([[3.0, 0.0, 1.0, 2.0], [0.0, 0.0, 0.0, 0.0]])
        positive = torch.tensor([[1, 0, 0, 0], [0, 1, 0, 1]], dtype=torch.bool)

        found = negative_weights(similarity, positive, floor=1e-4)

        for row in range(2):
            scores = similarity[row].tolist()
            expected = [0.0 if positive[row, i] else math.exp(log_share(scores, i)) + 1e-4 for i in range(len(scores))]
            assert found[row].tolist() == pytest.approx(expected, rel=1e-5)

    def test_negatives_that_vanish_beside_a_positive_are_all_alike(self):
        similarity = torch.tensor([[1000.0, 0.0, 5.0]])
        found = negative_weights(similarity, torch.tensor([[True, False, False]]), floor=0.0)
        assert found.tolist() == [[0.0, 1.0, 1.0]]

    def test_a_row_of_positives_alone_has_no_negative(self):
        positive = torch.tensor([[True, True], [True, False]])
        found = negative_weights(torch.zeros(2, 2), positive, floor=1e-4)
        assert has_negative(found).tolist() == [False, True]

    def test_the_similarity_gets_no_gradient(self):
        found = negative_weights(torch.zeros(2, 2, requires_grad=True), torch.eye(2).bool(), 0.0)
        assert not found.requires_grad


class TestDraw:
    DRAWS = 40_000

    def test_the_frequencies_are_the_weights(self):
        torch.manual_seed(0)
        weights = torch.tensor([[0.0, 1.0, 3.0, 0.5], [2.0, 2.0, 0.0, 0.0]])
        drawn = draw(weights, self.DRAWS)
        for row in range(2):
            for column, weight in enumerate(weights[row].tolist()):
                expected = weight / weights[row].sum().item()
                share = (drawn[row] == column).float().mean().item()
                assert share == pytest.approx(expected, abs=5 * math.sqrt(expected * (1 - expected) / self.DRAWS))

    def test_a_row_of_zeros_draws_and_does_not_fail(self):
        torch.manual_seed(0)
        assert draw(torch.zeros(1, 3), 300).unique().tolist() == [0, 1, 2]
