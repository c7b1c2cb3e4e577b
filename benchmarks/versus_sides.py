"""The two sides of the comparison: capfilt's captioner and filter, and transformers' BLIP used as well as it can be.

A side takes uint8 pixels or a shard and gives texts and P(match), so that nothing is left on the device unfinished.
Both write NEW tokens for each caption, drawn alike: top-k 50, nucleus 0.9, repetition penalty 1.1, after one prompt.

Shapes: B images, S side of the model's input, L tokens, M image tokens, D width.
"""

import io
import os
from pathlib import Path
from typing import Any, Protocol

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler would write into the table
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # everything is read from local folders

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor
from transformers import BlipForConditionalGeneration, BlipForImageTextRetrieval, BlipProcessor
from versus_inputs import PROMPT, Folders

from capfilt.bootstrap import CapFilt, capfilt_unit
from capfilt.captioners.med import MEDCaptioner
from capfilt.config import BootstrapConfig, Device, FilterSettings, Sampling
from capfilt.filters.med import MEDFilter
from capfilt.med.auto import resolve_auto
from capfilt.med.checkpoints import load
from capfilt.med.vision import normalise
from capfilt.planning import plan_shards
from capfilt.prefetch import prefetch
from capfilt.records import Sample
from capfilt.runs import start_run
from capfilt.shards import open_shard
from capfilt.units import cut_units

NEW = 20  # tokens of a caption, the prompt's not counted
LENGTH = 1 + len(PROMPT) + NEW
DRAW = {"top_k": 50, "top_p": 0.9, "repetition_penalty": 1.1}
DECODE_THREADS = 2
DOCUMENTED = ", as documented"


class Side(Protocol):
    """One way to caption and score."""

    name: str

    def caption(self, pixels: Tensor, n: int) -> list[list[str]]:
        """Return n captions for each image of pixels, uint8 (B, 3, S, S)."""

    def score(self, pixels: Tensor, texts: list[list[str]]) -> list[list[float]]:
        """Return P(match) of texts[i] with pixels[i]."""

    def shard(self, tar: Path, n: int, batch: int, out: Path) -> None:
        """Caption and score a shard's images, and write the rows of its ledger below a new folder."""


class Ours:
    """capfilt's models, through what a bootstrap calls. Models are built when first asked for."""

    def __init__(self, folders: Folders, device: Device) -> None:
        self.name = f"capfilt {device.dtype}"
        self.folders, self.device = folders, resolve_auto(device)
        self._captioner: tuple[Sampling, MEDCaptioner] | None = None
        self._filters: dict[bool, MEDFilter] = {}

    def captioner(self, sampling: Sampling) -> MEDCaptioner:
        """Return a captioner; the last one is kept, so that no two take memory at a time."""
        if self._captioner is None or self._captioner[0] != sampling:
            self._captioner = None
            captioner = MEDCaptioner("captioner", load(self.folders.captioner), sampling, self.device)
            self._captioner = sampling, captioner
        return self._captioner[1]

    @property
    def filter(self) -> MEDFilter:
        """The filter with its ITC cosine."""
        if not self._filters:
            checkpoint = load(self.folders.filter)
            for itc in (True, False):  # the same model twice, which is loaded once
                self._filters[itc] = MEDFilter("filter", checkpoint, FilterSettings(itc=itc), self.device)
        return self._filters[True]

    @property
    def matcher(self) -> MEDFilter:
        """The filter without ITC, which transformers is not asked for either."""
        return self.filter and self._filters[False]

    def caption(self, pixels: Tensor, n: int) -> list[list[str]]:
        """Return n captions for each image of pixels, uint8 (B, 3, S, S)."""
        captions = self.captioner(sampling(n)).caption(pixels, range(len(pixels)))
        return [[caption.text for caption in group] for group in captions]

    def score(self, pixels: Tensor, texts: list[list[str]]) -> list[list[float]]:
        """Return P(match) of texts[i] with pixels[i]."""
        return [[scores.itm for scores in group] for group in self.matcher.score(pixels, texts)]

    def shard(self, tar: Path, n: int, batch: int, out: Path) -> None:
        """Plan a run of one shard and bootstrap its units in this process."""
        config = BootstrapConfig(
            input=[str(tar)],
            run=str(out),
            captioner=str(self.folders.captioner),
            filter=str(self.folders.filter),
            batch_size=batch,
            sampling=sampling(n),
            scoring=FilterSettings(itc=False),
            device=self.device,
            decode_threads=DECODE_THREADS,
        )
        run = start_run(config, {"captioner": "captioner", "filter": "filter"})
        models = CapFilt(self.captioner(sampling(n)), self.matcher)
        for shard in plan_shards(run, [str(tar)]):
            for unit in cut_units(shard, config):
                capfilt_unit(unit, models, config, run)


class Theirs:
    """transformers' models: an image encoded once, its texts broadcast against it, padded to the longest.

    as_documented matches as the documentation shows: one pair for each row.
    """

    def __init__(self, folders: Folders, device: Device) -> None:
        self.name = f"transformers {device.dtype}"
        self.device, self.dtype, self.paired = device.kind, getattr(torch, device.dtype), False
        where = {"device": self.device, "dtype": self.dtype}
        self.captioner: Any = BlipForConditionalGeneration.from_pretrained(folders.captioner).to(**where).eval()
        self.filter: Any = BlipForImageTextRetrieval.from_pretrained(folders.filter).to(**where).eval()
        self.processor: Any = BlipProcessor.from_pretrained(folders.captioner)
        self.prompt = self.ids([" ".join(PROMPT)])  # (1, P + 1), the end token last, which generate drops
        self.encoder_token = self.processor.tokenizer.convert_tokens_to_ids("[ENC]")

    def as_documented(self) -> "Theirs":
        """Return the same models, matched pair by pair."""
        other = object.__new__(Theirs)
        other.__dict__.update(self.__dict__, name=self.name + DOCUMENTED, paired=True)
        return other

    def ids(self, texts: list[str]) -> Tensor:
        """Return token ids (R, L), padded to the longest."""
        return self.tokens(texts)["input_ids"]

    def tokens(self, texts: list[str]) -> dict[str, Tensor]:
        """Return input_ids and attention_mask (R, L)."""
        found = self.processor.tokenizer(texts, padding="longest", return_tensors="pt").to(self.device)
        return {name: found[name] for name in ("input_ids", "attention_mask")}

    def floats(self, pixels: Tensor) -> Tensor:
        """Return what the vision tower takes, (B, 3, S, S)."""
        return normalise(pixels.to(self.device), self.dtype)

    def caption(self, pixels: Tensor, n: int) -> list[list[str]]:
        """Return n captions for each image of pixels, uint8 (B, 3, S, S)."""
        return self._caption(self.floats(pixels), do_sample=True, num_return_sequences=n, **DRAW)

    def greedy(self, pixels: Tensor) -> list[list[str]]:
        """Return the likeliest words, one caption for each image."""
        penalty = DRAW["repetition_penalty"]
        return self._caption(self.floats(pixels), do_sample=False, num_return_sequences=1, repetition_penalty=penalty)

    @torch.inference_mode()
    def _caption(self, images: Tensor, num_return_sequences: int, **settings: object) -> list[list[str]]:
        prompt = self.prompt.repeat(len(images), 1)  # (B, P + 1)
        written = self.captioner.generate(
            images, prompt, max_new_tokens=NEW, num_return_sequences=num_return_sequences, **settings
        )
        new = written[:, self.prompt.shape[1] - 1 :]  # (B * n, NEW)
        texts = self.processor.tokenizer.batch_decode(new, skip_special_tokens=True)
        return [texts[i : i + num_return_sequences] for i in range(0, len(texts), num_return_sequences)]

    def score(self, pixels: Tensor, texts: list[list[str]]) -> list[list[float]]:
        """Return P(match) of texts[i] with pixels[i]."""
        return [logits.float().softmax(dim=1)[:, 1].tolist() for logits in self.match(self.floats(pixels), texts)]

    @torch.inference_mode()
    def match(self, images: Tensor, texts: list[list[str]]) -> list[Tensor]:
        """Return the ITM logits of the texts of each image, (K, 2) each."""
        if self.paired:
            return [self._pairs(image, group) for image, group in zip(images, texts, strict=True)]
        states = self.filter.vision_model(images).last_hidden_state  # (B, M, D)
        return [self._broadcast(state[None], group) for state, group in zip(states, texts, strict=True)]

    def _pairs(self, image: Tensor, texts: list[str]) -> Tensor:
        return self.filter(pixel_values=image.expand(len(texts), *image.shape), **self.marked(texts)).itm_score

    def _broadcast(self, state: Tensor, texts: list[str]) -> Tensor:
        words = self.filter.text_encoder(encoder_hidden_states=state, **self.marked(texts)).last_hidden_state
        return self.filter.itm_head(words[:, 0])  # (K, 2)

    def marked(self, texts: list[str]) -> dict[str, Tensor]:
        """Return tokens with [ENC] in front."""
        tokens = self.tokens(texts)
        tokens["input_ids"][:, 0] = self.encoder_token  # nothing in transformers does it
        return tokens

    def shard(self, tar: Path, n: int, batch: int, out: Path) -> None:
        """Decode and prepare ahead of the models as capfilt does, with Pillow and transformers' processor."""
        reader, rows = open_shard(str(tar)), []
        with torch.inference_mode():
            for samples in prefetch(reader.read(0, reader.samples), batch, self._prepare, DECODE_THREADS):
                rows += self._rows(samples, n)
        out.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(rows), out / "candidates.parquet", compression="zstd")

    def _prepare(self, sample: Sample) -> tuple[Sample, Tensor]:
        with Image.open(io.BytesIO(sample.image)) as image:
            found = self.processor.image_processor(image.convert("RGB"), return_tensors="pt")
        return sample, found["pixel_values"][0]  # (3, S, S)

    def _rows(self, samples: list[tuple[Sample, Tensor]], n: int) -> list[dict[str, object]]:
        images = torch.stack([image for _, image in samples]).to(self.device, self.dtype)  # (B, 3, S, S)
        captions = self._caption(images, do_sample=True, num_return_sequences=n, **DRAW)
        texts = [[sample.text, *group] for (sample, _), group in zip(samples, captions, strict=True)]
        scores = [logits.float().softmax(dim=1)[:, 1].tolist() for logits in self.match(images, texts)]
        return [
            {"key": sample.key, "source": source, "text": text, "itm": itm}
            for (sample, _), group, values in zip(samples, texts, scores, strict=True)
            for source, text, itm in zip(["web", *["synthetic"] * n], group, values, strict=True)
        ]


def sampling(n: int, new: int = NEW) -> Sampling:
    """Return how capfilt draws n captions of new tokens each."""
    length = LENGTH - NEW + new
    return Sampling(captions=n, max_length=length, min_length=length, prompt=" ".join(PROMPT) + " ", **DRAW)
