"""Text to token ids and back: BERT's WordPiece with BLIP's two added tokens."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import tokenizers
import torch
from tokenizers import decoders, models, normalizers, pre_tokenizers
from torch import Tensor

from capfilt.errors import CheckpointError

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_CONTRACTIONS = {" ' ": "'", " n't": "n't", " 'm": "'m", " 's": "'s", " 've": "'ve", " 're": "'re"}
_MAX_BYTES = 32 << 20  # of a vocabulary file; bert-base-uncased's tokenizer.json has 0.7 MB


class Tokenizer:
    """WordPiece over a vocab.txt or a tokenizer.json; `[DEC]` and `[ENC]` are the two ids after its words.

    A special token written in a text is split like any other text: it can never act as one.

    Raises:
        CheckpointError: the file is missing, too large or not UTF-8, lacks one of BERT's special tokens, or is the
            tokenizer.json of another tokenizer.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise CheckpointError(
                f"no vocabulary at {path}; put bert-base-uncased's vocab.txt there, or transformers' tokenizer.json"
            )
        self.vocabulary = _words(path)
        ids = {word: i for i, word in enumerate(self.vocabulary)}
        if missing := [token for token in SPECIAL if token not in ids]:
            raise CheckpointError(f"{path}: lacks {', '.join(missing)}; it is not a BERT vocabulary")
        self.pad, self.cls, self.end = ids["[PAD]"], ids["[CLS]"], ids["[SEP]"]
        self.dec, self.enc = len(self.vocabulary), len(self.vocabulary) + 1
        self._special = {ids[token] for token in SPECIAL if token != "[UNK]"} | {self.dec, self.enc}
        self._pieces = _word_piece(ids)
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
        """Return what encode gives for each text. Other Python threads can run meanwhile."""
        encoded = self._pieces.encode_batch_fast(list(texts))
        return [[first, *pieces.ids[: max_tokens - 2], self.end] for pieces in encoded]

    def batch(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Return rows of ids padded on the right: ids, int64 (R, L), and keep, bool (R, L), True where real."""
        length = max(map(len, rows))
        keep = np.arange(length) < np.fromiter(map(len, rows), np.int64)[:, None]  # (R, L)
        ids = np.full(keep.shape, self.pad)  # (R, L)
        ids[keep] = np.fromiter(chain.from_iterable(rows), np.int64)  # takes a sixth of the time of torch.tensor
        return torch.from_numpy(ids), torch.from_numpy(keep)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids up to the first [SEP], special tokens left out."""
        return self.decode_all([ids])[0]

    def decode_all(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """Return what decode gives for each row of ids. Other Python threads can run meanwhile."""
        texts = self._pieces.decode_batch([self._words(ids) for ids in rows])
        # The decoder leaves the ## of a piece that continues a word where no word comes before it.
        return [_unspaced(text.strip()).removeprefix("##") for text in texts]

    def _words(self, ids: Sequence[int]) -> list[int]:
        ids = list(ids)
        ids = ids[: ids.index(self.end)] if self.end in ids else ids
        return ids if self._special.isdisjoint(ids) else [i for i in ids if i not in self._special]


def _unspaced(text: str) -> str:
    """Return a text without blanks around apostrophes, as the original's: the decoder sees one token at a time."""
    for spaced, joined in _CONTRACTIONS.items():
        text = text.replace(spaced, joined)
    return text


def _word_piece(ids: dict[str, int]) -> tokenizers.Tokenizer:
    """Return a tokenizer that splits texts as bert-base-uncased does."""
    found = tokenizers.Tokenizer(models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=100))
    found.normalizer = normalizers.BertNormalizer(lowercase=True)
    found.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return found


def _words(path: Path) -> list[str]:
    """Return the words of a vocab.txt, or of the tokenizer.json that transformers saves, in the order of their ids."""
    text = _read(path)
    if path.suffix != ".json":
        # Not splitlines, which also cuts at characters that a vocabulary may hold, such as U+2028.
        return text.removesuffix("\n").split("\n")
    try:
        found = tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # the library raises nothing narrower
        raise CheckpointError(f"{path}: is not a tokenizer: {error}; copy it again") from None
    ids = found.get_vocab(with_added_tokens=False)
    words = sorted(ids, key=ids.__getitem__)
    if other := _difference(found, words):
        raise CheckpointError(f"{path}: {other}, unlike BLIP's; put bert-base-uncased's vocab.txt beside it")
    if [ids[word] for word in words] != list(range(len(words))):
        raise CheckpointError(f"{path}: its ids are not 0 to {len(words) - 1}, each once; copy it again")
    return words


def _difference(found: tokenizers.Tokenizer, words: list[str]) -> str:
    """Return why a tokenizer gives some texts other ids than ours does; empty if it does not."""
    ours, model = _word_piece({}), found.model
    if not isinstance(model, models.WordPiece):
        return f"its model is {type(model).__name__}"
    for key in ("unk_token", "continuing_subword_prefix", "max_input_chars_per_word"):
        if (value := getattr(model, key)) != getattr(ours.model, key):
            return f"its {key} is {value}"
    for key in ("normalizer", "pre_tokenizer"):
        if (part := str(getattr(found, key))) != str(getattr(ours, key)):
            return f"its {key} is {part}"
    added = {"[DEC]": len(words), "[ENC]": len(words) + 1}
    for number, token in found.get_added_tokens_decoder().items():
        if token.content not in SPECIAL and added.get(token.content) != number:
            return f"it adds the token {token.content} as {number}"
    return ""


def _read(path: Path) -> str:
    if (size := path.stat().st_size) > _MAX_BYTES:
        raise CheckpointError(f"{path}: has {size} bytes, more than any BERT vocabulary; copy it again")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path}: is not UTF-8 at byte {error.start}; it is not a BERT vocabulary") from None
