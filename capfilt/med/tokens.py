"""Text to token ids and back: BERT's WordPiece with BLIP's two added tokens."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from torch import Tensor

from capfilt.errors import CheckpointError

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


class Tokens:
    """WordPiece over a vocabulary file; `[DEC]` and `[ENC]` are the two ids behind its end.

    A special token written in a text is split like any other text: it can never act as one.

    Raises:
        CheckpointError: the file is missing, not UTF-8, or lacks one of BERT's special tokens.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise CheckpointError(
                f"no vocabulary at {path}; put bert-base-uncased's vocab.txt there, which transformers 5 does not save"
            )
        # Not splitlines, which also cuts at characters that a vocabulary may hold, such as U+2028.
        self.vocabulary = _read(path).removesuffix("\n").split("\n")
        ids = {word: i for i, word in enumerate(self.vocabulary)}
        if missing := [token for token in SPECIAL if token not in ids]:
            raise CheckpointError(f"{path}: lacks {', '.join(missing)}; it is not a BERT vocabulary")
        self.pad, self.cls, self.end = ids["[PAD]"], ids["[CLS]"], ids["[SEP]"]
        self.dec, self.enc = len(self.vocabulary), len(self.vocabulary) + 1
        self._special = {ids[token] for token in SPECIAL if token != "[UNK]"} | {self.dec, self.enc}
        self._pieces = Tokenizer(models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=100))
        self._pieces.normalizer = normalizers.BertNormalizer(lowercase=True)
        self._pieces.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        self._pieces.decoder = decoders.WordPiece(cleanup=True)

    def __len__(self) -> int:
        return len(self.vocabulary) + 2

    def pieces(self, text: str) -> list[int]:
        """Return the ids of a text without any special token."""
        return list(self._pieces.encode(text).ids)

    def encode(self, text: str, first: int, max_tokens: int) -> list[int]:
        """Return [first] + pieces + [SEP], cut to max_tokens with the [SEP] kept."""
        return [first, *self.pieces(text)[: max_tokens - 2], self.end]

    def encode_all(self, texts: Sequence[str], first: int, max_tokens: int) -> list[list[int]]:
        """Return what encode gives of each text. Other threads of Python go on meanwhile."""
        encoded = self._pieces.encode_batch_fast(list(texts))
        return [[first, *pieces.ids[: max_tokens - 2], self.end] for pieces in encoded]

    def batch(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Return rows of ids padded on the right: ids, int64 (R, L), and keep, bool (R, L), True where real."""
        length = max(map(len, rows))
        keep = np.arange(length) < np.fromiter(map(len, rows), np.int64)[:, None]  # (R, L)
        ids = np.full(keep.shape, self.pad)  # (R, L)
        ids[keep] = np.fromiter(chain.from_iterable(rows), np.int64)  # a sixth of the time that torch.tensor takes
        return torch.from_numpy(ids), torch.from_numpy(keep)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids up to the first [SEP], special tokens left out."""
        return self.decode_all([ids])[0]

    def decode_all(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """Return what decode gives of each row of ids. Other threads of Python go on meanwhile."""
        texts = self._pieces.decode_batch([self._words(ids) for ids in rows])
        # The decoder, which sees a token at a time, leaves the blanks around apostrophes; the original has them go.
        return [text.strip().replace(" ' ", "'") for text in texts]

    def _words(self, ids: Sequence[int]) -> list[int]:
        ids = list(ids)
        ids = ids[: ids.index(self.end)] if self.end in ids else ids
        return ids if self._special.isdisjoint(ids) else [i for i in ids if i not in self._special]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path}: is not UTF-8 at byte {error.start}; it is not a BERT vocabulary") from None
