"""The filter of the paper: MED's image-grounded encoder with its ITM head, and the ITC cosine beside it."""

from collections.abc import Sequence
from itertools import islice

import torch
from torch import Tensor

from capfilt.config import Device, FilterSettings
from capfilt.errors import ConfigError
from capfilt.filters import Scores
from capfilt.med.checkpoints import Checkpoint
from capfilt.med.inference import on_device, ready, settle
from capfilt.memory import InParts
from capfilt.texts import normalise as normalise_text


class MEDFilter:
    """Scores texts against their image; web and synthetic texts of an image in one pass (section 3.3)."""

    def __init__(self, name: str, checkpoint: Checkpoint, settings: FilterSettings, device: Device) -> None:
        self.name = name
        self.device = settle(device)
        self.model = ready(checkpoint.model, self.device)
        self.tokens = checkpoint.tokens
        self.settings = settings
        self._in_parts = InParts(self._score_all)
        self.image_size = self.model.config.vision.image_size
        positions = self.model.config.text.positions
        if settings.max_tokens > positions:
            raise ConfigError(f"scoring.max_tokens: {settings.max_tokens}, the model takes {positions}; lower it")
        self.first = self.tokens.enc if settings.first_token == "[ENC]" else self.tokens.cls

    def score(self, pixels: Tensor, texts: Sequence[Sequence[str]]) -> list[list[Scores]]:
        """Return the scores of texts[i], which belong to pixels[i]; pixels are uint8 (B, 3, S, S)."""
        return self._in_parts(pixels, texts)

    @torch.inference_mode()
    def _score_all(self, pixels: Tensor, texts: Sequence[Sequence[str]]) -> list[list[Scores]]:
        if not any(texts):
            return [[] for _ in texts]
        image = self.model.encode_image(on_device(pixels, self.device))  # (B, M, D)
        owners = torch.tensor([i for i, group in enumerate(texts) for _ in group], device=self.device.kind)  # (R,)
        scores = iter(self._score(image, [text for group in texts for text in group], owners))
        return [list(islice(scores, len(group))) for group in texts]

    def _score(self, image: Tensor, rows: list[str], owners: Tensor) -> list[Scores]:
        words = [normalise_text(text, self.settings.max_words) for text in rows]
        encoded = self.tokens.encode_all(words, self.first, self.settings.max_tokens)
        ids, keep = self.tokens.batch(encoded)  # (R, L), (R, L)
        ids, keep = ids.to(self.device.kind), keep.to(self.device.kind)
        logits = self.model.match(ids, keep, self.model.project_image(image), owners).float()  # (R, 2)
        match = logits.softmax(dim=1)[:, 1].tolist()  # R numbers
        if not self.settings.itc:
            return [Scores(itm, None) for itm in match]
        ids[:, 0] = self.tokens.cls
        features = self.model.text_features(ids, keep).float()  # (R, E)
        images = self.model.image_features(image).float()  # (B, E)
        cosine = (features * images[owners]).sum(dim=1).tolist()  # R numbers
        return [Scores(*pair) for pair in zip(match, cosine, strict=True)]
