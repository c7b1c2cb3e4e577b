"""A model starts from a ViT as it is and draws the rest; what does not fit is told with what to set."""

import io
import zipfile
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import timm
import torch
from models import start_settings
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer

from capfilt.config.initial import InitialWeights
from capfilt.config.model import ModelSettings
from capfilt.errors import CheckpointError
from capfilt.med.initial import start
from capfilt.med.vision import resize_positions

KERNEL = "embedding/kernel"
QUERY = "Transformer/encoderblock_0/MultiHeadDotProductAttention_1/query/kernel"


@pytest.fixture
def settings(tmp_path) -> ModelSettings:
    return start_settings(tmp_path)


class TestFile:
    @pytest.fixture
    def vit(self) -> VisionTransformer:
        """A classifier with random weights, as timm and the authors of DeiT save one."""
        torch.manual_seed(0)
        vit = VisionTransformer(img_size=32, patch_size=8, embed_dim=48, depth=3, num_heads=3, num_classes=7).eval()
        for parameter in vit.parameters():
            parameter.data.add_(0.1 * torch.randn_like(parameter))
        return vit

    @pytest.fixture(params=["weights.safetensors", "folder", "deit.pth", "imagenet21k.npz"])
    def source(self, request, vit, tmp_path) -> Path:
        path = tmp_path / request.param
        if path.suffix == ".npz":
            np.savez(path, **flax_names(vit))
        elif path.suffix == ".pth":
            torch.save({"model": vit.state_dict()}, path)
        else:
            file = path if path.suffix else path / "model.safetensors"
            file.parent.mkdir(exist_ok=True)
            save_file(vit.state_dict(), file)
        return path

    @torch.inference_mode()
    def test_the_tower_sees_what_the_vit_saw(self, settings, vit, source):
        model = start(settings, InitialWeights(vision=str(source)), 0).model.eval()
        images = torch.randn(2, 3, 32, 32)
        torch.testing.assert_close(model.encode_image(images), vit.forward_features(images), rtol=0, atol=1e-5)

    def test_positions_are_interpolated_to_the_image_size(self, settings, vit, source):
        larger = settings.model_copy(update={"image_size": 48})
        model = start(larger, InitialWeights(vision=str(source)), 0).model
        torch.testing.assert_close(model.vision.vit.pos_embed, resize_positions(vit.pos_embed, 37))

    def test_the_rest_stays_as_it_was_drawn(self, settings, source):
        plain, given = (start(settings, InitialWeights(vision=v), 5).model.state_dict() for v in (None, str(source)))
        changed = {name.split(".")[0] for name in plain if not torch.equal(plain[name], given[name])}
        assert changed == {"vision"}

    def test_what_was_taken_and_left_out_is_told(self, settings, source, caplog):
        start(settings, InitialWeights(vision=str(source)), 0)
        head = "head/bias, head/kernel" if source.suffix == ".npz" else "head.bias, head.weight"
        assert caplog.messages == [f"{source}: 42 tensors taken, 0 drawn at random (none), 2 left out ({head})"]

    @pytest.mark.parametrize(
        ("changes", "told"),
        [
            ({"vision_width": 96, "vision_depth": 2}, "set model.vision_width: 48, model.vision_depth: 3$"),
            ({"patch_size": 16}, "set model.patch_size: 8$"),
            ({"stem": "conv"}, "set model.stem: patch$"),
        ],
    )
    def test_other_sizes_are_told_with_what_to_set(self, settings, source, changes, told):
        with pytest.raises(CheckpointError, match=rf"{source.name}: is a ViT of other sizes; {told}"):
            start(settings.model_copy(update=changes), InitialWeights(vision=str(source)), 0)

    def test_an_npz_tells_its_heads(self, settings, vit, tmp_path):
        np.savez(tmp_path / "vit.npz", **flax_names(vit))
        other = settings.model_copy(update={"vision_heads": 4})
        with pytest.raises(CheckpointError, match=r"set model\.vision_heads: 3$"):
            start(other, InitialWeights(vision=str(tmp_path / "vit.npz")), 0)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"norm.bias": None}, r"tensors that do not fit vision: 1 \(vision\.vit\.norm\.bias is missing\)"),
            (
                {"dist_token": torch.zeros(1, 1, 48)},
                r"tensors that do not fit .*: 1 .*vision\.vit\.dist_token is left over",
            ),
            ({"blocks.1.mlp.fc1.bias": torch.zeros(5)}, r"blocks\.1\.mlp\.fc1\.bias is \(5,\), not \(192,\)"),
            ({"pos_embed": torch.zeros(1, 18, 48)}, "has 18 positions, not a class token's and a square of patches'"),
            ({"pos_embed": None}, r"vision\.vit\.pos_embed is missing"),
            ({"patch_embed.proj.weight": None}, r"holds no patch_embed\.proj\.weight; give ViT weights under timm's"),
        ],
    )
    def test_every_tensor_has_to_fit(self, settings, vit, tmp_path, changes, message):
        state = {name: t for name, t in (vit.state_dict() | changes).items() if t is not None}
        save_file(state, tmp_path / "vit.safetensors")
        with pytest.raises(CheckpointError, match=message):
            start(settings, InitialWeights(vision=str(tmp_path / "vit.safetensors")), 0)

    def test_what_is_no_npz_of_a_vit_is_refused(self, settings, vit, tmp_path):
        path = tmp_path / "vit.npz"
        arrays = flax_names(vit)
        del arrays["Transformer/encoderblock_1/LayerNorm_2/bias"]
        np.savez(path, **arrays)
        for _ in range(2):
            with pytest.raises(
                CheckpointError, match=r"vit\.npz: is not a ViT in the layout of the ImageNet-21k files"
            ):
                start(settings, InitialWeights(vision=str(path)), 0)
            path.write_bytes(b"half a f")

    def test_a_bomb_is_not_unpacked(self, settings, vit, tmp_path):
        path = tmp_path / "vit.npz"
        np.savez_compressed(path, **flax_names(vit), pad=np.zeros(1 << 20))
        with pytest.raises(CheckpointError, match=r"vit\.npz: unpacks to \d+ bytes, the file has \d+: not read; save"):
            start(settings, InitialWeights(vision=str(path)), 0)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({KERNEL: np.zeros((8, 8, 3, 3 << 12), np.float16)}, r"its tower has \d+ numbers, the file \d+ bytes"),
            ({f"Transformer/encoderblock_{i}/LayerNorm_0/scale": [0] for i in range(3, 999)}, "its tower has"),
            ({KERNEL: np.zeros((0, 0, 3, 48))}, "by zero"),
            ({QUERY: np.zeros(())}, "out of range"),
            ({"cls": ["a"]}, "can't convert"),
        ],
    )
    def test_sizes_that_its_numbers_do_not_bear_out_are_refused(self, settings, vit, tmp_path, changes, message):
        np.savez(tmp_path / "vit.npz", **flax_names(vit) | changes)
        with pytest.raises(CheckpointError, match=rf"vit\.npz: is not a ViT in the layout .* \(.*{message}"):
            start(settings, InitialWeights(vision=str(tmp_path / "vit.npz")), 0)

    def test_an_array_of_a_size_that_it_only_states_is_not_made(self, settings, vit, tmp_path):
        np.savez(tmp_path / "vit.npz", **flax_names(vit) | {KERNEL: np.zeros((8, 8, 3, 48), np.float32)})
        data = (tmp_path / "vit.npz").read_bytes()
        stated, more = b"(8, 8, 3, 48), }" + b" " * 12, b"(8, 8, 3, 48000000000000), }"
        with zipfile.ZipFile(tmp_path / "vit.npz", "w") as changed, zipfile.ZipFile(io.BytesIO(data)) as plain:
            for name in plain.namelist():
                changed.writestr(name, plain.read(name).replace(stated, more))
        with pytest.raises(CheckpointError, match=r"vit\.npz: is not a ViT in the layout .* \(Unable to allocate"):
            start(settings, InitialWeights(vision=str(tmp_path / "vit.npz")), 0)


def flax_names(vit: VisionTransformer) -> dict[str, np.ndarray]:
    """Return a ViT's weights as the ImageNet-21k files hold them, whose matrices have their inputs first."""
    state = {name: tensor.numpy() for name, tensor in vit.state_dict().items()}
    heads, width = vit.blocks[0].attn.num_heads, vit.embed_dim
    arrays = {
        "cls": state["cls_token"],
        "embedding/kernel": state["patch_embed.proj.weight"].transpose(2, 3, 1, 0),
        "embedding/bias": state["patch_embed.proj.bias"],
        "Transformer/posembed_input/pos_embedding": state["pos_embed"],
        "Transformer/encoder_norm/scale": state["norm.weight"],
        "Transformer/encoder_norm/bias": state["norm.bias"],
        "head/kernel": state["head.weight"].T,
        "head/bias": state["head.bias"],
    }
    for i in range(len(vit.blocks)):
        ours, theirs = f"blocks.{i}.", f"Transformer/encoderblock_{i}/"
        attention = f"{theirs}MultiHeadDotProductAttention_1/"
        for norm, name in (("norm1", "LayerNorm_0"), ("norm2", "LayerNorm_2")):
            arrays[f"{theirs}{name}/scale"] = state[f"{ours}{norm}.weight"]
            arrays[f"{theirs}{name}/bias"] = state[f"{ours}{norm}.bias"]
        for part, name in enumerate(("query", "key", "value")):
            rows = slice(part * width, (part + 1) * width)
            arrays[f"{attention}{name}/kernel"] = state[f"{ours}attn.qkv.weight"][rows].T.reshape(width, heads, -1)
            arrays[f"{attention}{name}/bias"] = state[f"{ours}attn.qkv.bias"][rows].reshape(heads, -1)
        arrays[f"{attention}out/kernel"] = state[f"{ours}attn.proj.weight"].T.reshape(heads, -1, width)
        arrays[f"{attention}out/bias"] = state[f"{ours}attn.proj.bias"]
        for layer in (1, 2):
            arrays[f"{theirs}MlpBlock_3/Dense_{layer - 1}/kernel"] = state[f"{ours}mlp.fc{layer}.weight"].T
            arrays[f"{theirs}MlpBlock_3/Dense_{layer - 1}/bias"] = state[f"{ours}mlp.fc{layer}.bias"]
    return arrays


TINY = {"image_size": 64, "patch_size": 16, "vision_width": 192, "vision_depth": 12, "vision_heads": 3}


class TestTimm:
    """Names of timm's models; the hub is a folder here."""

    @pytest.fixture(autouse=True)
    def offline(self, monkeypatch, tmp_path) -> Path:
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        return tmp_path / "hub"

    @pytest.fixture
    def deit(self, offline) -> VisionTransformer:
        model = timm.create_model("deit_tiny_patch16_224")
        folder = offline / "models--timm--deit_tiny_patch16_224.fb_in1k"
        (folder / "snapshots" / "0").mkdir(parents=True)
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text("0")
        save_file(model.state_dict(), folder / "snapshots" / "0" / "model.safetensors")
        return model

    def test_a_name_gives_its_published_weights(self, settings, deit):
        model = start(settings.model_copy(update=TINY), InitialWeights(vision="deit_tiny_patch16_224"), 0).model
        assert torch.equal(model.vision.vit.blocks[11].mlp.fc2.weight, deit.blocks[11].mlp.fc2.weight)
        assert torch.equal(model.vision.vit.pos_embed, resize_positions(deit.pos_embed, 17))

    def test_a_name_tells_the_heads(self, settings, deit):
        other = settings.model_copy(update={**TINY, "vision_heads": 12})
        with pytest.raises(CheckpointError, match=r"deit_tiny_patch16_224: is a ViT of other sizes; set .*heads: 3$"):
            start(other, InitialWeights(vision="deit_tiny_patch16_224"), 0)

    def test_weights_that_cannot_be_fetched(self, settings):
        with pytest.raises(CheckpointError, match=r"deit_tiny_patch16_224: timm cannot get its weights \(.+\); bring"):
            start(settings, InitialWeights(vision="deit_tiny_patch16_224"), 0)

    @pytest.mark.parametrize("source", ["deit_bass_patch16_224", "weights/deit.pth"])
    def test_neither_a_file_nor_a_name(self, settings, source):
        with pytest.raises(
            CheckpointError, match=rf"^{source}: is neither a file, nor a folder, nor a model of timm; give ViT"
        ):
            start(settings, InitialWeights(vision=source), 0)
