"""Sizes and shipped settings against the numbers of the paper (BLIP, arXiv 2201.12086) and of its released code."""

from functools import reduce
from pathlib import Path

import pytest
import torch
from torch import nn

from capfilt.config.evaluation import EvaluateConfig
from capfilt.config.loading import load
from capfilt.config.model import ModelSettings
from capfilt.config.schema import Config
from capfilt.config.sizes import MEDConfig, NLVR2Sizes, VisionConfig, VQASizes
from capfilt.config.tasks import load_finetuning
from capfilt.config.training import PretrainConfig
from capfilt.med.model import MED
from capfilt.med.nlvr2 import NLVR2
from capfilt.med.vqa import VQA

CONFIGS = Path(__file__).parent.parent / "configs"


def millions(model: nn.Module, *left_out: str) -> float:
    parameters = model.named_parameters()
    return sum(p.numel() for name, p in parameters if not any(part in name for part in left_out)) / 1e6


def test_at_base_size_models_have_the_originals_numbers_of_parameters():
    """Table 3 of the paper says 252 million; the others are those of the original's classes."""
    with torch.device("meta"):
        med = MED(ModelSettings(vocabulary="vocab.txt").sizes(vocabulary=30524))
        found = {
            "vision": millions(med.vision),
            "text encoder": millions(med.text, "decoder_attn", "head."),
            "pre-training": millions(med),
            "captioner": millions(MED(MEDConfig(encoder=False))),
            "filter": millions(MED(MEDConfig(decoder=False))),
            "nlvr2": millions(NLVR2(NLVR2Sizes())),
            "vqa": millions(VQA(VQASizes(vision=VisionConfig(image_size=480)))),
        }
    expected = {"vision": 85.80, "text encoder": 137.26, "pre-training": 252.44, "captioner": 223.97, "filter": 223.74}
    assert found == pytest.approx(expected | {"nlvr2": 259.37, "vqa": 361.48}, abs=0.005)


def test_the_temperature_starts_where_the_originals_does():
    sizes = ModelSettings(vocabulary="vocab.txt", vision_depth=1, text_depth=1).sizes(vocabulary=9)
    assert MED(sizes).temperature.item() == pytest.approx(0.07)


def augmentation(section: str, min_scale: float) -> dict[str, object]:
    values = {"min_scale": min_scale, "flip": True, "operations": 2, "level": 5, "chance": 0.5}
    return {f"{section}.{key}": value for key, value in values.items()}


TRAINING = {
    "schedule.weight_decay": 0.05,
    "schedule.decay_vectors": True,
    "schedule.beta2": 0.999,
    "schedule.max_gradient_norm": None,
    "schedule.accumulation": 1,
    "schedule.texts_per_image": 1,
}
FINETUNING = TRAINING | {
    "schedule.batch_size": 256,
    "schedule.decay": "epoch_cosine",
    "schedule.min_rate": 0.0,
    "schedule.warmup_steps": 0,
    "image_size": 384,
}
COCO = FINETUNING | augmentation("data.augmentation", 0.5) | {"schedule.learning_rate": 1e-5, "data.max_words": 30}
CAPTIONS = 5  # of an image of COCO, of which an epoch here draws one
TASK = FINETUNING | augmentation("augmentation", 0.5) | {"drop_path": 0.1}
MOMENTUM = {"momentum.decay": 0.995, "momentum.queue": 57600, "momentum.alpha": 0.4}

SHIPPED = {
    "pretrain": TRAINING
    | MOMENTUM
    | augmentation("data.augmentation", 0.2)
    | {
        "model.image_size": 224,
        "model.drop_path": 0.0,
        "initial.vision": "deit_base_patch16_224",
        "data.max_words": 30,
        "data.max_tokens": 30,
        "schedule.epochs": 20,
        "schedule.batch_size": 2880,
        "schedule.learning_rate": 3e-4,
        "schedule.warmup_steps": 3000,
        "schedule.warmup_rate": 1e-6,
        "schedule.decay": "epoch_factor",
        "schedule.decay_factor": 0.9,
        "schedule.min_rate": 1e-6,
        "momentum.alpha_ramp": 2 / 20,
        "momentum.negatives": "same_rank",
        "itm_warmup": 0.0,
    },
    "finetune_captioner": COCO
    | {"schedule.epochs": 5 * CAPTIONS, "prompt": "a picture of ", "data.max_tokens": 40 - len(["a", "picture", "of"])},
    "finetune_filter": COCO
    | MOMENTUM
    | {
        "schedule.epochs": 6 * CAPTIONS,
        "data.max_tokens": 35,
        "momentum.alpha_ramp": round(1 / 6, 3),
        "momentum.negatives": "all_ranks",
        "device.recompute_vision": 4,
    },
    "finetune_vqa": TASK
    | {
        "image_size": 480,
        "schedule.learning_rate": 2e-5,
        "schedule.epochs": 10,
        "data.single_answer_weight": 0.2,
        "data.max_words": 50,
        "data.max_tokens": 35,
    },
    "finetune_nlvr2": TASK
    | {
        "schedule.learning_rate": 3e-5,
        "schedule.epochs": 15,
        "merge_from": 6,
        "data.max_words": 40,
        "data.swap": True,
    },
    "evaluate_retrieval": {
        "image_size": 384,
        "retrieval.top_k": 256,
        "retrieval.score": "logit_and_cosine",
        "scoring.first_token": "[ENC]",
        "scoring.max_words": 30,
        "scoring.max_tokens": 35,
    },
    "evaluate_captioning": {
        "image_size": 384,
        "captioning.method": "beam",
        "captioning.beams": 3,
        "captioning.repetition_penalty": 1.0,
        "captioning.max_length": 20,
        "captioning.min_length": 5,
        "captioning.prompt": "a picture of ",
    },
    "evaluate_vqa": {"image_size": 480, "vqa.method": "rank", "vqa.top_k": 128, "questions.max_words": 50},
    "evaluate_nlvr2": {"image_size": 384, "sentences.swap": True, "sentences.max_words": 40},
    "evaluate_video": {"image_size": 384, "retrieval.top_k": 128, "video.frames": 8, "scoring.max_words": 40},
}


def shipped(name: str) -> Config:
    file = CONFIGS / f"{name}.yaml"
    if name.startswith("finetune"):
        return load_finetuning(file)
    return load(PretrainConfig if name == "pretrain" else EvaluateConfig, file)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_settings_are_the_originals(name):
    """The paper's section 4.1 and table 14, and where it is silent or differs the released code's."""
    config = shipped(name)
    found = {key: reduce(getattr, key.split("."), config) for key in SHIPPED[name]}
    assert found == SHIPPED[name]
