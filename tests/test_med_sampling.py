"""From scores to a token: exact on small cases, and right in frequency over a grid of noise."""

import itertools
import math

import numpy as np
import pytest
import torch
from numpy.random import Generator, Philox
from pydantic import ValidationError
from torch import Tensor

from capfilt.config import Sampling
from capfilt.config.evaluation import CaptioningSettings
from capfilt.med.sampling import BANNED, ban, draw, nucleus, penalise, uniforms


@pytest.fixture
def scores() -> Tensor:
    return torch.randn(6, 40, generator=torch.Generator().manual_seed(0)) * 2


@pytest.mark.parametrize("settings", [Sampling, CaptioningSettings])
@pytest.mark.parametrize("key", ["temperature", "repetition_penalty"])
@pytest.mark.parametrize("value", [0, -1, 1e-38, math.inf, math.nan])
def test_numbers_that_leave_float32_are_refused(settings, key, value):
    with pytest.raises(ValidationError, match=key):
        settings(**{key: value})


def kept(scores: Tensor, top_k: int, top_p: float) -> list[set[int]]:
    probabilities, ids = nucleus(scores, top_k, top_p)
    return [{int(i) for i, p in zip(*row, strict=True) if p > 0} for row in zip(ids, probabilities, strict=True)]


class TestNucleus:
    @pytest.mark.parametrize("top_k", [0, 7, 1000])
    @pytest.mark.parametrize("top_p", [0.1, 0.5, 0.9, 0.999])
    def test_it_is_the_least_set_whose_mass_reaches_p(self, scores, top_k, top_p):
        for row, found in zip(scores.tolist(), kept(scores, top_k, top_p), strict=True):
            order = sorted(range(len(row)), key=lambda i: -row[i])[: top_k or len(row)]
            shares = torch.tensor([row[i] for i in order], dtype=torch.float64).softmax(0).tolist()
            least = next(n for n, mass in enumerate(itertools.accumulate(shares), 1) if mass >= top_p)
            assert found == set(order[:least])

    def test_the_likeliest_token_is_always_in(self, scores):
        assert kept(scores, 0, 1e-9) == [{int(i)} for i in scores.argmax(1)]

    def test_without_top_k_and_p_every_token_stays(self):
        """Float32 sums come to 1 long before the last of 30,000 tokens."""
        wide = torch.randn(3, 30_000, generator=torch.Generator().manual_seed(0)) * 3
        wide[2] = 0.0
        wide[2, 7] = 40.0  # takes all that such a sum can hold
        assert [len(row) for row in kept(wide, 0, 1.0)] == [30_000] * 3

    @pytest.mark.parametrize("top_p", [0.5, 0.95])
    def test_looking_among_the_likeliest_first_changes_no_bit(self, scores, top_p, monkeypatch):
        """Some rows find their nucleus there and others do not, which sorts them all."""
        scores[:3] *= 20
        whole, order = nucleus(scores, 0, top_p)
        monkeypatch.setattr("capfilt.med.sampling.LIKELY", 4)
        for rows in (slice(0, 3), slice(0, 6)):
            found, ids = nucleus(scores[rows], 0, top_p)
            assert found.shape[1] == (4 if rows.stop == 3 else 40)
            for a, b, c, d in zip(found, ids, whole, order, strict=False):
                assert a[a > 0].equal(c[c > 0])
                assert b[a > 0].equal(d[c > 0])

    def test_tokens_of_one_score_keep_their_order_whatever_stands_beside(self):
        """Scores of bfloat16 are full of equals. A flat row beside has the whole vocabulary sorted."""
        row = torch.randn(1, 3000, generator=torch.Generator().manual_seed(0)).mul(3).bfloat16().float()
        flat = torch.zeros_like(row)
        alone, own = nucleus(row, 0, 0.5)
        beside, ids = nucleus(torch.cat([flat, row, flat]), 0, 0.5)
        assert ids.shape[1] == 3000
        assert beside[1, : alone.shape[1]].equal(alone[0])
        assert ids[1, : alone.shape[1]].equal(own[0])
        assert not beside[1, alone.shape[1] :].any()

    @pytest.mark.parametrize("top_k", [0, 7])
    def test_at_the_least_temperature_and_penalty_the_likeliest_token_is_alone(self, scores, top_k):
        least = Sampling(temperature=1e-6, repetition_penalty=1e-6)
        hot = penalise(scores, torch.zeros(6, 1, dtype=torch.long), least.repetition_penalty)
        assert kept(hot / least.temperature, top_k, 0.999) == [{int(i)} for i in hot.argmax(1)]

    def test_a_banned_token_is_never_in(self, scores):
        banned = ban(scores, int(scores[0].argmax()))
        assert all(int(scores[0].argmax()) not in row for row in kept(banned, 0, 1.0))

    def test_the_shares_inside_keep_their_proportions(self):
        probabilities, ids = nucleus(torch.tensor([[0.4, 0.3, 0.2, 0.1]]).log(), 0, 0.6)
        torch.testing.assert_close(probabilities, torch.tensor([[0.4, 0.3, 0.0, 0.0]]))
        assert ids.tolist() == [[0, 1, 2, 3]]


class TestDraw:
    def test_over_a_grid_of_noise_each_token_comes_as_often_as_it_is_likely(self):
        shares = [0.5, 0.25, 0.15, 0.1, 0.0]
        grid = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
        rows = torch.tensor([shares]).double().expand(1000, -1)
        ids = torch.tensor([[7, 3, 9, 1, 5]]).expand(1000, -1)

        found = draw(rows, ids, grid)

        assert [int((found == token).sum()) for token in (7, 3, 9, 1, 5)] == [500, 250, 150, 100, 0]

    def test_a_border_belongs_to_the_token_behind_it(self):
        shares, ids = torch.tensor([[0.5, 0.25, 0.25, 0.0]]).expand(4, -1), torch.tensor([[7, 3, 9, 1]]).expand(4, -1)
        assert draw(shares, ids, torch.tensor([0.0, 0.5, 0.75, 0.7499])).tolist() == [7, 3, 9, 3]

    @pytest.mark.parametrize("left", [0.9, 0.51, 0.3333, 1e-3])
    def test_what_the_nucleus_cut_off_is_made_up_for_by_the_rest(self, left):
        shares, ids = torch.tensor([[left * 0.75, left * 0.25, 0.0]]), torch.tensor([[0, 1, 2]])
        grid = torch.linspace(0, 1, 401, dtype=torch.float64)[:-1]
        found = draw(shares.expand(400, -1), ids.expand(400, -1), grid)
        assert abs(int((found == 0).sum()) - 300) <= 1
        assert int((found == 2).sum()) == 0

    def test_shares_that_are_no_numbers_draw_a_token_all_the_same(self):
        """Its log-probability tells of them later; to look behind the last token would end the process on a GPU."""
        shares, ids = torch.full((1, 3), math.nan), torch.tensor([[7, 3, 9]])
        assert draw(shares, ids, torch.tensor([0.5], dtype=torch.float64)).item() in (7, 3, 9)

    @pytest.mark.parametrize("noise", [0.0, 1 - 2**-53])
    def test_the_ends_of_the_noise_draw_tokens_of_the_nucleus(self, scores, noise):
        probabilities, ids = nucleus(scores, 0, 0.7)
        found = draw(probabilities, ids, torch.full((len(scores),), noise, dtype=torch.float64))
        assert all(int(token) in row for token, row in zip(found, kept(scores, 0, 0.7), strict=True))


class TestPenalty:
    def test_a_written_token_gets_worse_whatever_its_sign(self):
        found = penalise(torch.tensor([[2.0, -2.0, 3.0, 0.0]]), torch.tensor([[0, 1, 3]]), 2.0)
        assert found.tolist() == [[1.0, -4.0, 3.0, 0.0]]

    def test_a_token_written_twice_is_punished_once(self):
        found = penalise(torch.tensor([[2.0, 1.0]]), torch.tensor([[0, 0, 0]]), 2.0)
        assert found.tolist() == [[1.0, 1.0]]

    def test_a_penalty_of_one_is_none(self, scores):
        assert torch.equal(penalise(scores, torch.zeros(6, 3, dtype=torch.long), 1.0), scores)

    def test_neither_penalty_nor_ban_changes_its_input(self, scores):
        before = scores.clone()
        assert (ban(penalise(scores, torch.zeros(6, 1, dtype=torch.long), 2.0), 4)[:, 4] == BANNED).all()
        assert torch.equal(scores, before)


class TestUniforms:
    def test_noise_is_philox_keyed_by_image_and_caption(self):
        noise = uniforms([42, 7], captions=3, steps=5)
        for row, (seed, index) in zip(noise, [(s, i) for s in (42, 7) for i in range(3)], strict=True):
            expected = Generator(Philox(key=np.array([seed, index], np.uint64))).random(5)
            assert row.tolist() == expected.tolist()

    def test_a_captions_noise_depends_on_its_image_and_number_alone(self):
        alone = uniforms([42], captions=1, steps=5)
        among = uniforms([7, 42, 9], captions=3, steps=8)
        assert torch.equal(among[3, :5], alone[0])

    def test_all_captions_have_noise_of_their_own_in_zero_to_one(self):
        noise = uniforms(list(range(50)), captions=4, steps=20)
        assert noise.shape == (200, 20)
        assert noise.dtype == torch.float64
        assert len(noise.unique()) == noise.numel()
        assert 0 <= noise.min() < noise.max() < 1
        assert noise.mean().item() == pytest.approx(0.5, abs=0.02)

    @pytest.mark.parametrize("seed", [2**53, 2**63 - 2, 2**63, 2**64 - 2])
    def test_neighbouring_seeds_of_64_bits_give_other_noise(self, seed):
        low, high = uniforms([seed, seed + 1], captions=1, steps=4)
        assert not torch.equal(low, high)
