"""Each loss against its sum written out, and the draw of hard negatives against its distribution."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from capfilt.med.losses import LABEL_SMOOTHING, contrastive_loss, hard_negatives, language_loss, matching_loss


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


class TestMatching:
    def test_it_is_the_mean_over_true_and_false_pairs(self):
        positive, negative = torch.tensor([[0.5, 2.0]]), torch.tensor([[1.0, -1.0], [0.0, 3.0]])
        each = [-log_share([0.5, 2.0], 1), -log_share([1.0, -1.0], 0), -log_share([0.0, 3.0], 0)]
        assert matching_loss(positive, negative).item() == pytest.approx(sum(each) / 3, rel=1e-6)

    def test_class_one_means_match(self):
        sure = torch.tensor([[-20.0, 20.0]])
        assert matching_loss(sure, -sure).item() < 1e-6
        assert matching_loss(-sure, sure).item() > 30


class TestLanguage:
    WORDS = 7

    @pytest.fixture
    def batch(self, generator) -> tuple[Tensor, Tensor, Tensor]:
        ids = torch.randint(0, self.WORDS, (2, 5), generator=generator)
        keep = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], dtype=torch.bool)
        return torch.randn(2, 5, self.WORDS, generator=generator), ids, keep

    def written_out(self, logits: Tensor, ids: Tensor, places: list[tuple[int, int]]) -> float:
        """Return the mean smoothed loss of the tokens at places (row, position)."""
        each = []
        for row, at in places:
            scores = logits[row, at - 1].tolist()
            shares = [log_share(scores, word) for word in range(self.WORDS)]
            uniform = sum(shares) / self.WORDS
            each.append(-(1 - LABEL_SMOOTHING) * shares[ids[row, at]] - LABEL_SMOOTHING * uniform)
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
        other, words = logits.clone(), ids.clone()
        other[1, 2:] += 5.0  # predicts padding
        other[:, 0] -= 5.0  # predicts the prompt's last token
        words[1, 3:] = (words[1, 3:] + 1) % self.WORDS
        words[:, :2] = (words[:, :2] + 1) % self.WORDS

        assert language_loss(other, words, keep, prompt=2) == language_loss(logits, ids, keep, prompt=2)

    def test_token_by_token_it_has_zeros_where_nothing_is_scored(self, batch):
        each = language_loss(*batch, prompt=2, reduction="none")

        assert (each != 0).tolist() == [[False, True, True, True], [False, True, False, False]]
        assert each.sum().item() / 4 == pytest.approx(language_loss(*batch, prompt=2).item(), rel=1e-6)


class TestHardNegatives:
    DRAWS = 40_000

    def test_the_frequencies_are_the_softmax_of_the_similarity_without_the_positives(self, generator):
        similarity = torch.tensor([[3.0, 0.0, 1.0, 2.0, -9.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
        positive = torch.tensor([[1, 0, 0, 0, 0], [0, 1, 0, 1, 0]], dtype=torch.bool)

        drawn = hard_negatives(similarity, positive, self.DRAWS, generator)

        for row in range(2):
            whole = sum(math.exp(s) for s in similarity[row].tolist())
            weights = [
                0.0 if own else math.exp(s) / whole + 1e-4
                for s, own in zip(similarity[row].tolist(), positive[row].tolist(), strict=True)
            ]
            for column, weight in enumerate(weights):
                share = (drawn[row] == column).float().mean().item()
                expected = weight / sum(weights)
                assert share == pytest.approx(expected, abs=5 * math.sqrt(expected * (1 - expected) / self.DRAWS))
        assert not (drawn[0] == 0).any()

    def test_a_positive_is_never_drawn_however_similar(self, generator):
        positive = torch.rand(50, 20, generator=generator) < 0.5
        positive[:, 0] = False
        similarity = torch.randn(50, 20, generator=generator) + 100.0 * positive

        drawn = hard_negatives(similarity, positive, 30, generator)

        assert drawn.shape == (50, 30)
        assert not positive.gather(1, drawn).any()

    def test_a_row_of_positives_alone_still_gets_its_draws(self, generator):
        drawn = hard_negatives(torch.zeros(1, 3), torch.ones(1, 3, dtype=torch.bool), 300, generator)
        assert drawn.unique().tolist() == [0, 1, 2]

    def test_one_generator_state_gives_one_draw(self):
        arguments = torch.randn(8, 8), torch.eye(8).bool(), 3
        first, second = (hard_negatives(*arguments, torch.Generator().manual_seed(5)) for _ in range(2))
        assert torch.equal(first, second)
