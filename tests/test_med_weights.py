"""What is not a checkpoint's file is refused by its name."""

import errno
import math
import zipfile
from zipfile import ZIP_DEFLATED

import pytest
import torch
from safetensors.torch import save_file

from capfilt.errors import CheckpointError
from capfilt.med.weights import load_json, load_tensors


def test_a_state_dict_is_read_alone_or_under_the_key_model(tmp_path):
    state = {"a": torch.ones(2)}
    for name, value in (("alone.pth", state), ("under.pth", {"model": state, "epoch": 3})):
        torch.save(value, tmp_path / name)
        assert torch.equal(load_tensors(tmp_path / name)["a"], state["a"])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1, 2], "holds no state dict; a BLIP .pth has one, under the key model"),
        ({"model": {"a": 1}}, "holds no state dict"),
        ({1: torch.ones(2)}, "holds no state dict"),
        ({"a": torch.ones(2).to_sparse()}, "holds no state dict"),
        ({"a": torch.ones(2).to(torch.complex64)}, "holds no state dict"),
        ({"a": torch.ones(2, device="meta")}, "holds no state dict"),
        ({"a": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)}, "holds no state dict"),
        ({"a": pytest.raises}, "holds something other than tensors, which is never unpickled"),
    ],
)
def test_anything_but_tensors_is_refused(tmp_path, value, message):
    torch.save(value, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=f"x.pth: {message}"):
        load_tensors(tmp_path / "x.pth")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_tensor_that_is_not_finite_is_told_by_its_name(tmp_path, value):
    save_file({"a": torch.ones(9), "b": torch.tensor([0, value, 1]).half()}, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match=r"x\.safetensors: b holds numbers that are not finite; fetch"):
        load_tensors(tmp_path / "x.safetensors")


def test_a_disk_that_does_not_answer_is_no_damage(tmp_path, monkeypatch):
    torch.save({"a": torch.ones(2)}, tmp_path / "x.pth")

    def stale(*_: object, **__: object) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(torch, "load", stale)
    with pytest.raises(OSError, match="Stale file handle"):
        load_tensors(tmp_path / "x.pth")


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_file_that_unpacks_to_more_than_it_holds_is_not_read(tmp_path, device):
    torch.save({"a": torch.zeros(1 << 20)}, tmp_path / "x.pth")
    with zipfile.ZipFile(tmp_path / "x.pth") as plain, zipfile.ZipFile(tmp_path / "y.pth", "w", ZIP_DEFLATED) as packed:
        for member in plain.namelist():
            packed.writestr(member, plain.read(member))
    with (
        torch.device(device),
        pytest.raises(CheckpointError, match=r"y\.pth: unpacks to \d+ bytes, the file has"),
    ):
        load_tensors(tmp_path / "y.pth")


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_tensor_that_repeats_what_the_file_holds_is_none(tmp_path, device):
    torch.save({"a": torch.zeros(1, dtype=torch.float16).expand(1 << 20, 1 << 20)}, tmp_path / "x.pth")
    with torch.device(device), pytest.raises(CheckpointError, match=r"x\.pth: holds no state dict"):
        load_tensors(tmp_path / "x.pth")


class Packed:
    """Pickles as a tensor of a type in which torch saves none."""

    def __reduce__(self) -> tuple[object, ...]:
        storage = torch.UntypedStorage(16)
        return torch._utils._rebuild_tensor_v3, (storage, 0, (4, 4), (4, 1), False, {}, torch.uint4)


@pytest.mark.parametrize("value", [Packed(), torch.zeros(16, dtype=torch.uint8).view(torch.bits8)])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_bits_and_packed_numbers_are_no_weights(tmp_path, value, device):
    torch.save({"a": value}, tmp_path / "x.pth")
    with torch.device(device), pytest.raises(CheckpointError, match=r"x\.pth: holds no state dict"):
        load_tensors(tmp_path / "x.pth")


def test_a_damaged_or_missing_file_is_told(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"cut")
    with pytest.raises(CheckpointError, match=r"x\.safetensors: cannot be read as tensors .*; fetch it again"):
        load_tensors(tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match=r"gone\.pth: is not there"):
        load_tensors(tmp_path / "gone.pth")


def test_weights_in_shards_are_told_as_such(tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"has its weights in shards, and one file is read; save it by save_pre"):
        load_tensors(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "is not JSON"), ("[" * 100_000, "is not JSON"), ("9" * 5000, "is not JSON"), ("[]", "is not a JSON object")],
)
def test_json_must_be_an_object(tmp_path, text, message):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=message):
        load_json(tmp_path / "config.json")
    with pytest.raises(CheckpointError, match=r"holds no config\.json; it is not a checkpoint folder"):
        load_json(tmp_path / "none" / "config.json")


@pytest.mark.parametrize("name", ["x.safetensors", "x.pth", "old.pth"])
def test_on_the_meta_device_names_and_shapes_are_read_and_no_values(tmp_path, name):
    state = {"a": torch.ones(2, 3), "b": torch.ones(4)}
    if name == "x.safetensors":
        save_file(state, tmp_path / name)
    else:
        torch.save(state, tmp_path / name, _use_new_zipfile_serialization=name == "x.pth")
    with torch.device("meta"):
        found = load_tensors(tmp_path / name)
    assert {key: (tensor.device.type, tuple(tensor.shape)) for key, tensor in found.items()} == {
        "a": ("meta", (2, 3)),
        "b": ("meta", (4,)),
    }


def test_a_file_that_was_cut_is_refused_on_the_meta_device_too(tmp_path):
    save_file({"a": torch.ones(2, 3)}, tmp_path / "x.safetensors")
    (tmp_path / "x.safetensors").write_bytes((tmp_path / "x.safetensors").read_bytes()[:-4])
    with torch.device("meta"), pytest.raises(CheckpointError, match=r"x\.safetensors: cannot be read as tensors"):
        load_tensors(tmp_path / "x.safetensors")
