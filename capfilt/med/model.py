"""MED: a vision tower and a text stack that encodes, matches and decodes.

Shapes: B images, R texts (the texts of an image next to each other), L tokens of a text,
M image tokens, D text width, E projection width, V vocabulary.
Source: BLIP, arXiv 2201.12086, section 3.1.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from capfilt.config.sizes import MEDConfig
from capfilt.med.attention import KeysValues
from capfilt.med.gpu import varlen_suits
from capfilt.med.text import TextStack
from capfilt.med.unpadded import UnpaddedTexts
from capfilt.med.vision import VisionTower

INITIAL_TEMPERATURE = 0.07
POSITION_STD = 0.2
BERT_WIDTH, BERT_STD = 768, 0.02  # arXiv 1810.04805


class MED(nn.Module):
    """The multimodal mixture of encoder and decoder. It takes token ids, never strings."""

    def __init__(self, config: MEDConfig) -> None:
        super().__init__()
        self.config = config
        self.vision = VisionTower(config.vision)
        self.text = TextStack(config.text, config.vision.width, config.encoder, config.decoder)
        if config.encoder:
            self.vision_proj = nn.Linear(config.vision.width, config.projection)
            self.text_proj = nn.Linear(config.text.width, config.projection)
            self.itm_head = nn.Linear(config.text.width, 2)
            self.temperature = nn.Parameter(torch.tensor(INITIAL_TEMPERATURE))

    def initialise(self, seed: int) -> "MED":
        """Draw all weights from the seed, normally distributed around 0.

        The deviation is BERT's 0.02 at BERT's width of 768 and grows as the number of inputs falls, so that
        a narrow model, too, starts with signals that its norms and its softmax can tell apart.
        """
        generator = torch.Generator().manual_seed(seed)

        def fill(weight: Tensor, inputs: int) -> None:
            weight.data.normal_(0.0, BERT_STD * (BERT_WIDTH / inputs) ** 0.5, generator=generator)

        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding | nn.Conv2d):
                fill(module.weight, module.weight[0].numel())
            if isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
                module.bias.data.zero_()
        # As large as the patch tokens that they are added to: the model takes long to notice weaker positions.
        self.vision.vit.pos_embed.data.normal_(0.0, POSITION_STD, generator=generator)
        fill(self.vision.vit.cls_token, self.config.vision.width)
        return self

    def encode_image(self, images: Tensor) -> Tensor:
        """Map normalised images, float (B, 3, S, S), to image tokens (B, M, D_image)."""
        return self.vision(images)  # type: ignore[no-any-return]

    def project_image(self, image: Tensor) -> list[KeysValues]:
        """Return the cross-attention keys and values of image tokens, for match and decode."""
        return self.text.project_image(image)

    def image_features(self, image: Tensor) -> Tensor:
        """Map image tokens (B, M, D_image) to contrastive features (B, E) of length 1."""
        return F.normalize(self.vision_proj(image[:, 0]), dim=-1)

    def text_features(self, ids: Tensor, keep: Tensor) -> Tensor:
        """Map texts that start with [CLS], ids and keep (R, L), to contrastive features (R, E) of length 1."""
        return self.features(self._first_states(ids, keep))

    def features(self, states: Tensor) -> Tensor:
        """Map last states (R, D) of [CLS] in mode "text" to contrastive features (R, E) of length 1."""
        return F.normalize(self.text_proj(states), dim=-1)

    def unpad(self, ids: Tensor, keep: Tensor, owners: Tensor, images: int, tokens: int) -> UnpaddedTexts:
        """Return texts without padding for inference, on the model's device, which is not waited for.

        Args:
            ids: int64 (R, L); on the host also for a model on a GPU, which would else be waited for.
            keep: bool (R, L), True for real tokens, on the device of ids, as is owners.
            owners: int64 (R,), the image of each text, non-decreasing.
            images: B.
            tokens: M.

        Raises:
            ValueError: a text is longer than the model takes.
        """
        words, sizes = self.text.embeddings.words.weight, self.config.text
        if ids.shape[1] > sizes.positions:
            raise ValueError(f"text has {ids.shape[1]} tokens, the model takes {sizes.positions}; truncate it")
        if not varlen_suits(words, sizes.width // sizes.heads):
            return UnpaddedTexts.of(ids, keep, owners, images).to(words.device)
        return UnpaddedTexts.varlen(ids, keep, owners, images, tokens).to(words.device)

    def match(self, ids: Tensor, keep: Tensor, image: list[KeysValues]) -> Tensor:
        """Map texts that start with [ENC], ids and keep (R, L), R / B for each image, to ITM logits (R, 2).

        Class 1 is a match.
        """
        return self.itm_head(self._first_states(ids, keep, image))  # type: ignore[no-any-return]

    def decode(self, ids: Tensor, image: list[KeysValues]) -> Tensor:
        """Map texts that start with [DEC], ids (R, L), to the logits (R, L, V) of each next token."""
        return self.text.logits(self.text.decode(ids, image))

    def _first_states(self, ids: Tensor, keep: Tensor, image: list[KeysValues] | None = None) -> Tensor:
        # Training keeps the padding, so that shapes do not change from step to step, as torch.compile wants.
        if not torch.is_inference_mode_enabled():
            return self.text.encode(ids, keep, image)[:, 0]  # (R, D)
        images, tokens = (len(image[0][0]), image[0][0].shape[2]) if image else (len(ids), 1)
        owners = torch.arange(len(ids), device=ids.device) // (len(ids) // images)  # (R,)
        texts = self.unpad(ids, keep, owners, images, tokens)
        return self.text.first_states(texts, image)[: len(ids)]  # (R, D)
