"""The captioner of the paper: MED's decoder."""

from collections.abc import Sequence
from functools import partial
from itertools import chain, islice

import torch
from torch import Tensor

from capfilt.config import Device, Sampling
from capfilt.errors import ConfigError
from capfilt.med.auto import resolve_auto
from capfilt.med.beam import beam_search
from capfilt.med.checkpoints import Checkpoint
from capfilt.med.decoding import DecodingState, Generated
from capfilt.med.generation import CaptionGenerator, generate, logprobs
from capfilt.med.gpu import own_stream, send
from capfilt.med.graphs import graph_runner
from capfilt.med.image_encoder import ImageCache, ImageEncoder
from capfilt.med.inference import ready
from capfilt.med.sampling import uniforms
from capfilt.memory import InParts
from capfilt.records import Caption
from capfilt.turns import UNSHARED, Turn

Row = tuple[list[int], float]
"""The ids of a caption, its prompt first, and its log-probability."""


class MEDCaptioner:
    """Samples captions that continue a prompt (arXiv 2201.12086, section 3.3)."""

    def __init__(
        self, name: str, checkpoint: Checkpoint, settings: Sampling, device: Device, cache: ImageCache | None = None
    ) -> None:
        """Take a checkpoint and, if the filter has the same vision tower, the cache of image tokens that both share."""
        self.name = name
        self.device = resolve_auto(device)
        self.model = ready(checkpoint.model, self.device)
        self.tokenizer = checkpoint.tokenizer
        self.settings = settings
        self._image_encoder = ImageEncoder(self.model, self.device, cache)
        self._in_parts = InParts(self._caption)
        # Its steps are many and small, and should not queue behind the large products of the filter.
        self._stream = own_stream(self.device.kind, urgent=True)
        self.image_size = self.model.config.vision.image_size
        self.prompt = [self.tokenizer.dec, *self.tokenizer.pieces(settings.prompt)]
        self._generator = CaptionGenerator(self.model, self.prompt, self.tokenizer.end, settings)
        self._runner = graph_runner(self._begin, self.device.kind)
        positions = self.model.config.text.positions
        if not len(self.prompt) < settings.max_length <= positions:
            raise ConfigError(
                f"sampling.max_length: {settings.max_length} tokens; it must be over {len(self.prompt)}, which the "
                f"prompt takes, and at most {positions}, which the model takes"
            )

    def caption(self, pixels: Tensor, noise: Sequence[int], turn: Turn = UNSHARED) -> list[list[Caption]]:
        """Return the captions of each image of pixels, uint8 (B, 3, S, S); noise is one seed for each image."""
        numbers = self._random_numbers(noise)
        with turn, self._stream:
            written = self._in_parts(self._image_encoder(pixels), numbers)
        captions = iter(self._to_captions(list(chain.from_iterable(written))))
        return [list(islice(captions, len(group))) for group in written]

    def _random_numbers(self, noise: Sequence[int]) -> Tensor:
        """Return the random numbers for sampling each image's captions, float64 (B, n, T); (B, 0) without sampling."""
        if self.settings.method != "nucleus":
            return torch.empty(len(noise), 0)
        numbers = uniforms(list(noise), self.settings.captions, self.settings.max_length)  # (B * n, T)
        return numbers.view(len(noise), self.settings.captions, self.settings.max_length)

    @torch.inference_mode()
    def _caption(self, image: Tensor, numbers: Tensor) -> list[list[Row]]:
        """Return the captions of each image, given as its tokens (B, M, D)."""
        written = self._write(image, numbers)
        rows = list(zip(written.ids.tolist(), written.logprobs.tolist(), strict=True))
        each = len(rows) // len(image)
        return [rows[i : i + each] for i in range(0, len(rows), each)]

    def _write(self, image: Tensor, numbers: Tensor) -> Generated:
        """Write the R = B * n captions of image tokens (B, M, D); numbers, float64 (B, n, T), are read in sampling."""
        settings = self.settings
        if settings.method == "beam":
            projected, end = self.model.project_image(image), self.tokenizer.end
            written = beam_search(self.model, projected, self.prompt, end, settings)
            # The search sums scores with the repetition penalty; a caption's logprob is the model's own.
            return written._replace(logprobs=logprobs(self.model, projected, written.ids, len(self.prompt), end))
        noise = send(numbers.flatten(0, 1), image.device) if settings.method == "nucleus" else None  # (B * n, T)
        state = self._runner.start(image, noise)
        return generate(self._generator, state, partial(self._runner.go_on, self._generator.go_on, state))

    def _begin(self, image: Tensor, noise: Tensor | None) -> DecodingState:
        """Write the first token of each caption of image tokens (B, M, D); noise is (R, T), None without sampling."""
        return self._generator.begin(self.model.project_image(image), noise, fixed=self._runner.captures)

    def _to_captions(self, rows: list[Row]) -> list[Caption]:
        """Turn ids into texts without their prompt, and count the tokens that were generated."""
        generated = [ids[len(self.prompt) :] for ids, _ in rows]
        end, texts = self.tokenizer.end, self.tokenizer.decode_all(generated)
        lengths = [ids.index(end) + 1 if end in ids else len(ids) for ids in generated]
        return [Caption(text, length, row[1]) for text, length, row in zip(texts, lengths, rows, strict=True)]
