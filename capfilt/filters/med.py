"""The filter of the paper: MED's image-grounded encoder with its ITM head, and the ITC cosine beside it."""

from collections.abc import Sequence
from itertools import islice

import torch
from torch import Tensor

from capfilt.config import Device, FilterSettings
from capfilt.errors import ConfigError
from capfilt.filters import Scores
from capfilt.med.checkpoints import Checkpoint
from capfilt.med.gpu import own_stream, send
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
        self._stream = own_stream(self.device.kind)
        self.image_size = self.model.config.vision.image_size
        positions = self.model.config.text.positions
        if settings.max_tokens > positions:
            raise ConfigError(f"scoring.max_tokens: {settings.max_tokens}, the model takes {positions}; lower it")
        self.first = self.tokens.enc if settings.first_token == "[ENC]" else self.tokens.cls

    def score(self, pixels: Tensor, texts: Sequence[Sequence[str]]) -> list[list[Scores]]:
        """Return the scores of texts[i], which belong to pixels[i]; pixels are uint8 (B, 3, S, S)."""
        with self._stream:
            return self._in_parts(pixels, texts)

    @torch.inference_mode()
    def _score_all(self, pixels: Tensor, texts: Sequence[Sequence[str]]) -> list[list[Scores]]:
        if not any(texts):
            return [[] for _ in texts]
        rows = [normalise_text(text, self.settings.max_words) for group in texts for text in group]
        owners = torch.tensor([i for i, group in enumerate(texts) for _ in group])  # (R,)
        encoded = self.tokens.encode_all(rows, self.first, self.settings.max_tokens)
        scores = iter(self._score(pixels, *self.tokens.batch(encoded), owners))
        return [list(islice(scores, len(group))) for group in texts]

    def _score(self, pixels: Tensor, ids: Tensor, keep: Tensor, owners: Tensor) -> list[Scores]:
        """Return the scores of ids and keep (R, L), texts of the images that owners (R,) names; all lie on the host."""
        image = self.model.encode_image(on_device(pixels, self.device))  # (B, M, D)
        there = send(ids, image.device)  # (R, L)
        logits = self.model.match(there, keep, self.model.project_image(image), owners).float()  # (R, 2)
        match = logits.softmax(dim=1)[:, 1]  # (R,)
        if not self.settings.itc:
            return [Scores(itm, None) for itm in match.tolist()]
        there[:, 0] = self.tokens.cls
        features = self.model.text_features(there, keep).float()  # (R, E)
        images = self.model.image_features(image).float()  # (B, E)
        cosine = (features * images[send(owners, image.device)]).sum(dim=1)  # (R,)
        return [Scores(*pair) for pair in zip(match.tolist(), cosine.tolist(), strict=True)]
