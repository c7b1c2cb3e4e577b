"""From a config to its two models, with their weights or in outline."""

from pathlib import Path

import pytest
from models import small_checkpoint

from capfilt.config import BootstrapConfig, Device
from capfilt.errors import CheckpointError, ConfigError
from capfilt.med.checkpoints import save
from capfilt.med.weights import count_parameters
from capfilt.models import build_models, checkpoint_hashes, describe_models, outline_models


@pytest.fixture
def config(tmp_path) -> BootstrapConfig:
    """A captioner without an encoder, and a filter without a decoder."""
    save(small_checkpoint(tmp_path, 1, encoder=False), tmp_path / "captioner")
    save(small_checkpoint(tmp_path, 2, decoder=False), tmp_path / "filter")
    return settings(tmp_path / "captioner", tmp_path / "filter")


def settings(captioner: Path, judge: Path) -> BootstrapConfig:
    device = Device(kind="cpu", dtype="float32", linear="plain")
    return BootstrapConfig(input=["in"], run="out", captioner=str(captioner), filter=str(judge), device=device)


def test_each_model_bears_the_hash_of_its_checkpoint(config):
    found, hashes = build_models(config), checkpoint_hashes(config)

    assert {"captioner": found.captioner.name, "filter": found.filter.name} == hashes
    assert hashes["captioner"] != hashes["filter"]


def test_without_a_gpu_it_is_not_advised_to_reserve_one(config, monkeypatch):
    """Workers on Ray have reserved theirs by now, and one process reserves nothing."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    on_gpu = config.model_copy(update={"device": Device(kind="cuda")})

    with pytest.raises(ConfigError, match=r"torch sees no GPU here; set device\.kind: cpu$"):
        build_models(on_gpu)


def test_an_outline_has_the_sizes_of_the_models_and_no_weights(config):
    found, outlined = build_models(config), outline_models(config)

    for role in ("captioner", "filter"):
        whole, outline = getattr(found, role), getattr(outlined, role)
        assert outline.image_size == whole.image_size
        assert count_parameters(outline.model) == count_parameters(whole.model)
        assert {parameter.device.type for parameter in outline.model.parameters()} == {"meta"}


def test_both_are_described_in_a_line(config):
    captioner, judge = (count_parameters(getattr(build_models(config), role).model) for role in ("captioner", "filter"))

    assert describe_models(config) == [
        f"captioner {config.captioner}: {captioner:,} parameters, 32 pixels",
        f"filter {config.filter}: {judge:,} parameters, 32 pixels",
    ]


@pytest.mark.parametrize("make", [build_models, outline_models])
def test_a_checkpoint_that_cannot_play_its_part_is_named(config, make):
    with pytest.raises(CheckpointError, match=r"filter: has no decoder; it can serve as filter, not as captioner$"):
        make(settings(Path(config.filter), Path(config.filter)))
    with pytest.raises(
        CheckpointError, match=r"captioner: has no encoder .*; it can serve as captioner, not as filter$"
    ):
        make(settings(Path(config.captioner), Path(config.captioner)))
