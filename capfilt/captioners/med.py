"""The captioner of the paper: MED's decoder."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from capfilt.config import Device, Sampling
from capfilt.errors import ConfigError
from capfilt.med.attention import KeysValues
from capfilt.med.beam import beam_search
from capfilt.med.checkpoints import Checkpoint
from capfilt.med.draft import Draft, Written
from capfilt.med.generation import Pen, logprobs, write
from capfilt.med.gpu import own_stream, send
from capfilt.med.graphs import Recorder, graphs
from capfilt.med.inference import on_device, ready, settle
from capfilt.med.sampling import uniforms
from capfilt.memory import InParts
from capfilt.records import Caption


class MEDCaptioner:
    """Samples captions that continue a prompt (arXiv 2201.12086, section 3.3)."""

    def __init__(self, name: str, checkpoint: Checkpoint, settings: Sampling, device: Device) -> None:
        self.name = name
        self.device = settle(device)
        self.model = ready(checkpoint.model, self.device)
        self.tokens = checkpoint.tokens
        self.settings = settings
        self._in_parts = InParts(self._caption)
        # Its steps are many and small: they are not to queue behind the large products of the filter.
        self._stream = own_stream(self.device.kind, urgent=True)
        self.image_size = self.model.config.vision.image_size
        self.prompt = [self.tokens.dec, *self.tokens.pieces(settings.prompt)]
        self._pen = Pen(self.model, self.prompt, self.tokens.end, settings)
        self._recorder = Recorder(self._begin, graphs if self.device.kind == "cuda" else None)
        positions = self.model.config.text.positions
        if not len(self.prompt) < settings.max_length <= positions:
            raise ConfigError(
                f"sampling.max_length: {settings.max_length} tokens; it must be over {len(self.prompt)}, which the "
                f"prompt takes, and at most {positions}, which the model takes"
            )

    def caption(self, pixels: Tensor, noise: Sequence[int]) -> list[list[Caption]]:
        """Return the captions of each image of pixels, uint8 (B, 3, S, S); noise is one seed for each image."""
        with self._stream:
            return self._in_parts(pixels, noise)

    @torch.inference_mode()
    def _caption(self, pixels: Tensor, noise: Sequence[int]) -> list[list[Caption]]:
        written = self._write(send(pixels, torch.device(self.device.kind)), noise)
        captions = self._read(written.ids.tolist(), written.logprobs.tolist())
        each = len(captions) // len(pixels)
        return [captions[i : i + each] for i in range(0, len(captions), each)]

    def _write(self, pixels: Tensor, noise: Sequence[int]) -> Written:
        settings = self.settings
        if settings.method == "beam":
            image, end = self._see(pixels), self.tokens.end
            written = beam_search(self.model, image, self.prompt, end, settings)
            # The search sums scores under its repetition penalty; a caption's logprob is the model's own.
            return written._replace(logprobs=logprobs(self.model, image, written.ids, len(self.prompt), end))
        numbers = None
        if settings.method == "nucleus":
            drawn = uniforms(list(noise), settings.captions, settings.max_length)  # (B * n, T)
            numbers = send(drawn, pixels.device)
        draft = self._recorder.start(pixels, numbers)
        return write(self._pen, draft, partial(self._recorder.go_on, self._pen.go_on, draft))

    def _begin(self, pixels: Tensor, noise: Tensor | None) -> Draft:
        return self._pen.begin(self._see(pixels), noise, fixed=self._recorder.records)

    def _see(self, pixels: Tensor) -> list[KeysValues]:
        return self.model.project_image(self.model.encode_image(on_device(pixels, self.device)))

    def _read(self, rows: list[list[int]], logprobs: list[float]) -> list[Caption]:
        generated = [ids[len(self.prompt) :] for ids in rows]
        end, texts = self.tokens.end, self.tokens.decode_all(generated)
        lengths = [ids.index(end) + 1 if end in ids else len(ids) for ids in generated]
        return list(map(Caption, texts, lengths, logprobs))
