"""What no checkpoint gives a model is drawn from the seed."""

import torch
from models import start_settings

from capfilt.config.initial import InitialWeights
from capfilt.med.initial import start


def test_nothing_given_is_all_random_from_the_seed(tmp_path):
    settings = start_settings(tmp_path)
    one, same, other = (start(settings, InitialWeights(), seed).model.state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["vision.vit.patch_embed.proj.weight"], other["vision.vit.patch_embed.proj.weight"])
