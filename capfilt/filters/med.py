"""The filter of the paper: MED's image-grounded encoder with its ITM head, and the ITC cosine beside it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from capfilt.config import Device, FilterSettings
from capfilt.errors import ConfigError
from capfilt.filters import Scores
from capfilt.med.checkpoints import Checkpoint
from capfilt.med.vision import normalise
from capfilt.texts import normalise as normalise_text


class MEDFilter:
    """Scores texts against their image; web and synthetic texts of an image in one pass (section 3.3)."""

    def __init__(self, name: str, checkpoint: Checkpoint, settings: FilterSettings, device: Device) -> None:
        self.name = name
        self.dtype = getattr(torch, device.dtype)
        self.model = checkpoint.model.to(device.kind, self.dtype)
        self.tokens = checkpoint.tokens
        self.settings = settings
        self.device = device.kind
        self.image_size = self.model.config.vision.image_size
        positions = self.model.config.text.positions
        if settings.max_tokens > positions:
            raise ConfigError(f"scoring.max_tokens: {settings.max_tokens}, the model takes {positions}; lower it")
        self.first = self.tokens.enc if settings.first_token == "[ENC]" else self.tokens.cls

    @torch.inference_mode()
    def score(self, pixels: Tensor, texts: Sequence[Sequence[str]]) -> list[list[Scores]]:
        """Return the scores of texts[i], which belong to pixels[i]; pixels are uint8 (B, 3, S, S)."""
        most = max(map(len, texts), default=0)
        if most == 0:
            return [[] for _ in texts]
        # Every image gets the same number of rows, so that its rows share its keys and values; the
        # empty ones are scored and dropped.
        rows = [text for group in texts for text in [*group, *[""] * (most - len(group))]]
        image = self.model.encode_image(normalise(pixels.to(self.device), self.dtype))  # (B, M, D)
        match, cosine = self._score(image, rows)  # (B * most,), (B * most,)
        scores = [Scores(*pair) for pair in zip(match.tolist(), cosine.tolist(), strict=True)]
        return [scores[i * most : i * most + len(group)] for i, group in enumerate(texts)]

    def _score(self, image: Tensor, rows: list[str]) -> tuple[Tensor, Tensor]:
        words = [normalise_text(text, self.settings.max_words) for text in rows]
        encoded = [self.tokens.encode(text, self.first, self.settings.max_tokens) for text in words]
        ids, keep = self.tokens.batch(encoded)  # (R, L), (R, L)
        ids, keep = ids.to(self.device), keep.to(self.device)
        logits = self.model.match(ids, keep, self.model.project_image(image)).float()  # (R, 2)
        ids[:, 0] = self.tokens.cls
        features = self.model.text_features(ids, keep).float()  # (R, E)
        images = self.model.image_features(image).float()  # (B, E)
        cosine = (features.view(len(images), -1, features.shape[1]) @ images[:, :, None]).flatten()  # (R,)
        return logits.softmax(dim=1)[:, 1], cosine
