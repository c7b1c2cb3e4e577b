"""The filter of the paper: MED's image-grounded encoder with its ITM head, and also the ITC cosine."""

from collections.abc import Sequence
from itertools import chain, islice
from typing import NamedTuple

import torch
from torch import Tensor

from capfilt.config import Device, FilterSettings
from capfilt.filters import Scores
from capfilt.med.attention import KeysValues
from capfilt.med.auto import resolve_auto
from capfilt.med.checkpoints import Checkpoint
from capfilt.med.gpu import own_stream
from capfilt.med.graphs import graph_runner
from capfilt.med.image_encoder import ImageCache, ImageEncoder
from capfilt.med.inference import ready
from capfilt.med.unpadded import UnpaddedTexts
from capfilt.memory import InParts
from capfilt.texts import normalise as normalise_text
from capfilt.turns import UNSHARED, Turn


class Seen(NamedTuple):
    """A batch of images, encoded once and read by all of their texts."""

    image: Tensor  # (B, M, D)
    projected: list[KeysValues]


class MEDFilter:
    """Scores texts against their image; web and synthetic texts of an image in one pass (section 3.3)."""

    def __init__(
        self,
        name: str,
        checkpoint: Checkpoint,
        settings: FilterSettings,
        device: Device,
        cache: ImageCache | None = None,
    ) -> None:
        """Take a checkpoint and, if the captioner has the same vision tower, the cache of image tokens both share."""
        self.name = name
        self.device = resolve_auto(device)
        self.model = ready(checkpoint.model, self.device)
        self.tokenizer = checkpoint.tokenizer
        self.settings = settings
        self._image_encoder = ImageEncoder(self.model, self.device, cache)
        self._in_parts = InParts(self._score_all)
        self._stream = own_stream(self.device.kind)
        self._runner = graph_runner(self._project, self.device.kind)
        self.image_size = self.model.config.vision.image_size
        self.model.config.require_room("scoring.max_tokens", settings.max_tokens)
        self.first = self.tokenizer.enc if settings.first_token == "[ENC]" else self.tokenizer.cls

    def score(self, pixels: Tensor, texts: Sequence[Sequence[str]], turn: Turn = UNSHARED) -> list[list[Scores]]:
        """Return the scores of texts[i], which belong to pixels[i]; pixels are uint8 (B, 3, S, S)."""
        encoded = self._encode(texts)
        if not any(encoded):
            return [[] for _ in encoded]
        with turn, self._stream:
            return self._in_parts(self._image_encoder(pixels), encoded)

    def _encode(self, texts: Sequence[Sequence[str]]) -> list[list[list[int]]]:
        """Return the token ids of each text of each image."""
        normal = [normalise_text(text, self.settings.max_words) for group in texts for text in group]
        encoded = iter(self.tokenizer.encode_all(normal, self.first, self.settings.max_tokens))
        return [list(islice(encoded, len(group))) for group in texts]

    @torch.inference_mode()
    def _score_all(self, image: Tensor, texts: Sequence[Sequence[list[int]]]) -> list[list[Scores]]:
        """Return the scores of texts[i], given as token ids, against image[i]; image holds image tokens (B, M, D)."""
        rows = list(chain.from_iterable(texts))
        if not rows:
            return [[] for _ in texts]
        owners = torch.tensor([i for i, group in enumerate(texts) for _ in group])  # (R,)
        unpadded = self.model.unpad(*self.tokenizer.batch(rows), owners, *image.shape[:2])
        seen = self._runner.start(image)
        scores = self._runner.go_on(self._judge, seen, unpadded)[: len(rows)].tolist()
        each = iter(Scores(*row) for row in scores)
        return [list(islice(each, len(group))) for group in texts]

    def _project(self, image: Tensor) -> Seen:
        return Seen(image, self.model.project_image(image))

    def _judge(self, seen: Seen, texts: UnpaddedTexts) -> Tensor:
        """Return P(match) of R texts, (R, 1), or with the ITC cosine, if it is asked for, (R, 2)."""
        logits = self.model.itm_head(self.model.text.first_states(texts, seen.projected)).float()  # (R, 2)
        match = logits.softmax(dim=1)[:, 1:]  # (R, 1)
        if not self.settings.itc:
            return match  # type: ignore[no-any-return]
        alone = texts._replace(ids=texts.ids.index_fill(0, texts.starts, self.tokenizer.cls))
        features = self.model.features(self.model.text.first_states(alone)).float()  # (R, E)
        images = self.model.image_features(seen.image).float()  # (B, E)
        cosine: Tensor = (features * images[texts.owners]).sum(dim=1, keepdim=True)  # (R, 1)
        return torch.cat([match, cosine], dim=1)
