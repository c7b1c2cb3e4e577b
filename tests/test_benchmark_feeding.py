"""The usual way that feeding is measured against comes to the same pixels, and the benchmark says what it compares."""

import argparse
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))
import feeding

OPTIONS = argparse.Namespace(side=32, rounds=2, pictures=2, batches=3, threads=[1, 2], images=None)


@pytest.mark.parametrize("photographs", [False, True])
def test_the_forms_differ_in_rounding_and_shrinking_alone(tmp_path, monkeypatch, photographs):
    torch.set_num_threads(1)
    monkeypatch.setattr(feeding, "SIZES", ((64, 48), (160, 128)))
    for name in ("red", "blue", "green") if photographs else ():
        Image.new("RGB", (24, 16), name).save(tmp_path / f"{name}.jpg")

    lines = list(feeding.by_size(argparse.Namespace(**{**vars(OPTIONS), "images": str(tmp_path)})))

    assert [(line["size"], line["form"]) for line in lines] == [
        (size, form) for size in ("64x48", "160x128") for form in ("usual", "whole", "shrunk", "to side")
    ]
    small, large = lines[:4], lines[4:]
    assert all(line["levels_max"] <= 2 for line in (*small, large[0], large[1]))
    assert 0 < large[2]["levels_mean"] < large[3]["levels_mean"]  # shrunk to 80 x 64 and to 40 x 32


def test_threads_are_compared_with_the_fewest():
    lines = list(feeding.by_threads(OPTIONS))

    assert [line["threads"] for line in lines] == [1, 2]
    assert lines[0]["ratio"] == 1
    assert all(0 <= line["idle_share"] <= 1 for line in lines)
