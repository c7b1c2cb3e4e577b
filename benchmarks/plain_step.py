"""A pre-training step of the original's algorithm done plainly, on our model's weights, with levers one by one.

Plainly: float32 and eager; attention as matrix products and a softmax; texts padded to 30; the image's keys and values
projected anew in each of the three passes that look at it; negatives drawn one at a time; momentum and AdamW as loops
over parameters. Written from the paper and its facts, not copied.

Shapes: B images and texts, L tokens, M image tokens, D width, H heads, K = D // H, E projection width, Q queue.
"""

import math
from collections.abc import Callable
from copy import deepcopy
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import AdamW

from capfilt.config.momentum import MomentumSettings
from capfilt.med.attention import Heads
from capfilt.med.losses import IGNORE, LABEL_SMOOTHING, draw
from capfilt.med.model import MED
from capfilt.med.tokenizer import Tokenizer
from capfilt.med.vision import normalise
from capfilt.training.data import Batch

LEVERS = (
    *("shared_keys", "no_padding", "batched_negatives"),
    *("foreach_momentum", "fused_adamw", "fused_attention", "bfloat16"),
)
PADDED = 30
HIDDEN = -10000.0  # added to the scores of what may not be seen
Image = Tensor | list[tuple[Tensor, Tensor]]  # tokens, or the keys and values of each block


class Queues(NamedTuple):
    """Features of steps before, random at first."""

    image: Tensor  # (E, Q)
    text: Tensor  # (E, Q)


class PlainStep:
    """A model, its momentum copy, queues and optimiser; `take` is one step."""

    def __init__(
        self,
        model: MED,
        tokenizer: Tokenizer,
        settings: MomentumSettings,
        queues: Queues,
        levers: frozenset[str] = frozenset(),
        choose: Callable[[Tensor, int], Tensor] = draw,
    ) -> None:
        self.model, self.copy = model, deepcopy(model).requires_grad_(False)
        self.tokenizer, self.settings, self.choose, self.levers = tokenizer, settings, choose, levers
        self.queues, self.pointer = Queues(*(queue.clone() for queue in queues)), 0
        self.optimiser = AdamW(
            model.parameters(), lr=3e-4, weight_decay=0.05, fused="fused_adamw" in levers, foreach=False
        )
        for tower in (self.model, self.copy):
            for block in tower.vision.vit.blocks:
                block.attn.fused_attn = "fused_attention" in levers

    def take(self, batch: Batch, done: float) -> dict[str, float]:
        """Take a step and return its losses."""
        with torch.autocast(batch.pixels.device.type, torch.bfloat16, enabled="bfloat16" in self.levers):
            losses = self.losses(batch, done)
        self.optimiser.zero_grad()
        sum(losses.values()).backward()
        self.optimiser.step()
        return {name: loss.item() for name, loss in losses.items()}

    def losses(self, batch: Batch, done: float) -> dict[str, Tensor]:
        """Return the three losses of a batch."""
        if "no_padding" not in self.levers:
            missing = (0, PADDED - batch.ids.shape[1])
            batch = batch._replace(ids=F.pad(batch.ids, missing), keep=F.pad(batch.keep, missing))
        pixels = normalise(batch.pixels)
        with torch.no_grad():
            self.model.temperature.clamp_(0.001, 0.5)
        image = self.model.encode_image(pixels)  # (B, M, D)
        seen: Image = self.model.project_image(image) if "shared_keys" in self.levers else image
        itc, weights = self._contrast(batch, pixels, image, done)
        return {"itc": itc, "itm": self._match(batch, seen, weights), "lm": self._decode(batch, seen)}

    def _contrast(
        self, batch: Batch, pixels: Tensor, image: Tensor, done: float
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        temperature, count = self.model.temperature, len(pixels)
        images = F.normalize(self.model.vision_proj(image[:, 0]), dim=1)  # (B, E)
        states = self._states(self.model, batch.ids, batch.keep, None)
        texts = F.normalize(self.model.text_proj(states[:, 0]), dim=1)  # (B, E)
        alpha = self.settings.alpha * min(1.0, done / self.settings.alpha_ramp)
        with torch.no_grad():
            self._follow()
            slow = F.normalize(self.copy.vision_proj(self.copy.encode_image(pixels)[:, 0]), dim=1)  # (B, E)
            slow_states = self._states(self.copy, batch.ids, batch.keep, None)
            slow_texts = F.normalize(self.copy.text_proj(slow_states[:, 0]), dim=1)  # (B, E)
            all_images = torch.cat([slow.T, self.queues.image.clone()], dim=1)  # (E, B + Q)
            all_texts = torch.cat([slow_texts.T, self.queues.text.clone()], dim=1)  # (E, B + Q)
            one_hot = torch.eye(count, all_images.shape[1], device=images.device)  # (B, B + Q)
            to_text = alpha * F.softmax(slow @ all_texts / temperature, dim=1) + (1 - alpha) * one_hot
            to_image = alpha * F.softmax(slow_texts @ all_images / temperature, dim=1) + (1 - alpha) * one_hot
        i2t, t2i = images @ all_texts / temperature, texts @ all_images / temperature  # (B, B + Q)
        loss = (
            -(F.log_softmax(i2t, dim=1) * to_text).sum(1).mean() - (F.log_softmax(t2i, dim=1) * to_image).sum(1).mean()
        )
        self._enqueue(slow, slow_texts)
        with torch.no_grad():
            weights = [F.softmax(logits[:, :count].float(), dim=1) + 1e-4 for logits in (i2t, t2i)]
        return loss / 2, tuple(table.fill_diagonal_(0) for table in weights)

    def _follow(self) -> None:
        slow, online, decay = self.copy.parameters(), self.model.parameters(), self.settings.decay
        if "foreach_momentum" in self.levers:
            torch._foreach_lerp_(list(slow), list(online), 1 - decay)
            return
        for copied, parameter in zip(slow, online, strict=True):
            copied.data = copied.data * decay + parameter.data * (1.0 - decay)

    def _enqueue(self, images: Tensor, texts: Tensor) -> None:
        end = self.pointer + len(images)
        self.queues.image[:, self.pointer : end] = images.T
        self.queues.text[:, self.pointer : end] = texts.T
        self.pointer = end % self.settings.queue

    def _negatives(self, weights: Tensor) -> Tensor:
        """Return a column for each row: one after the other, each waited for, as the original."""
        if "batched_negatives" in self.levers:
            return self.choose(weights, 1)[:, 0]
        return torch.tensor([int(self.choose(row[None], 1)) for row in weights], device=weights.device)

    def _match(self, batch: Batch, seen: Image, weights: tuple[Tensor, Tensor]) -> Tensor:
        """Return ITM from a pass over the true pairs and one, twice as large, over the false ones."""
        ids, keep, count = batch.ids.clone(), batch.keep, len(batch.ids)
        ids[:, 0] = self.tokenizer.enc
        true = self._states(self.model, ids, keep, seen)[:, 0]  # (B, D)
        images, texts = self._negatives(weights[1]), self._negatives(weights[0])  # (B,), (B,)
        both = torch.cat([images, torch.arange(count, device=images.device)])  # (2B,)
        false = self._states(
            self.model, torch.cat([ids, ids[texts]]), torch.cat([keep, keep[texts]]), self._rows(seen, both)
        )[:, 0]  # (2B, D)
        logits = self.model.itm_head(torch.cat([true, false]))  # (3B, 2)
        labels = torch.cat([torch.ones(count), torch.zeros(2 * count)]).long()  # (3B,)
        return F.cross_entropy(logits, labels.to(logits.device))

    def _rows(self, seen: Image, rows: Tensor) -> Image:
        return seen[rows] if isinstance(seen, Tensor) else [(keys[rows], values[rows]) for keys, values in seen]

    def _decode(self, batch: Batch, seen: Image) -> Tensor:
        ids = batch.ids.clone()
        ids[:, 0] = self.tokenizer.dec
        logits = self.model.text.logits(self._states(self.model, ids, batch.keep, seen, causal=True))  # (B, L, V)
        labels = ids.masked_fill(~batch.keep, IGNORE)[:, 1:]  # (B, L - 1)
        return F.cross_entropy(logits[:, :-1].flatten(0, 1), labels.flatten(), label_smoothing=LABEL_SMOOTHING)

    def _states(self, model: MED, ids: Tensor, keep: Tensor, seen: Image | None, causal: bool = False) -> Tensor:
        """Return the text stack's last states (B, L, D)."""
        mask = (~keep)[:, None, None, :] * HIDDEN  # (B, 1, 1, L)
        if causal:
            mask = mask + torch.ones(ids.shape[1], ids.shape[1], device=ids.device).triu(1) * HIDDEN  # (B, 1, L, L)
        x = model.text.embeddings(ids)  # (B, L, D)
        for layer, block in enumerate(model.text.blocks):
            attention = block.decoder_attn if causal else block.encoder_attn
            x = self._attend(attention, x, attention.project(x), mask)
            if seen is not None:
                cross = block.cross_attn
                x = self._attend(cross, x, cross.project(seen) if isinstance(seen, Tensor) else seen[layer], None)
            x = block.mlp(x)
        return x

    def _attend(self, part: Heads, x: Tensor, context: tuple[Tensor, Tensor], mask: Tensor | None) -> Tensor:
        keys, values = context  # (B, H, M, K)
        queries = part.query(x).unflatten(2, (part.heads, -1)).transpose(1, 2)  # (B, H, L, K)
        dropout = part.attention_dropout if part.training else 0.0
        if "fused_attention" in self.levers:
            mask = None if mask is None else mask.to(queries.dtype)
            y = F.scaled_dot_product_attention(queries, keys, values, mask, dropout)
        else:
            scores = queries @ keys.transpose(2, 3) / math.sqrt(queries.shape[-1])  # (B, H, L, M)
            shares = F.dropout(F.softmax(scores if mask is None else scores + mask, dim=-1), dropout)
            y = shares @ values.to(shares.dtype)  # (B, H, L, K)
        return part.norm(x + part.dropout(part.out(y.transpose(1, 2).flatten(2))))
