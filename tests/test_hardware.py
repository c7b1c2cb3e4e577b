import pytest

from capfilt.errors import ConfigError
from capfilt.hardware import require_device


@pytest.mark.parametrize("kind", ["cpu", "auto"])
def test_without_a_gpu_all_but_one_can_be_had(monkeypatch, kind):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)

    require_device(kind, "")
    with pytest.raises(ConfigError, match=r"^device\.kind: cuda, but torch sees no GPU here; set device\.kind: cpu$"):
        require_device("cuda", "set device.kind: cpu")


def test_a_gpu_that_is_there_is_taken(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)

    require_device("cuda", "")
