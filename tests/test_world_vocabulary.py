import re
import unicodedata

import pytest

from capfilt.world.captions import true_captions
from capfilt.world.noise import NoiseRates, web_text
from capfilt.world.scenes import scene_at, stream
from capfilt.world.vocabulary import vocabulary

WORDS = set(vocabulary())


def words_of(text: str) -> list[str]:
    return re.findall(r"[^\W_]+|[^\w\s]|_", text.lower())


def test_every_word_of_a_caption_is_one_word_piece():
    for index in range(1000):
        for caption in true_captions(scene_at(0, "train", index), stream(0, "train", index, "captions"), 3):
            assert set(caption.split()) <= WORDS


@pytest.mark.parametrize("word", ["grün", "grun", "cuadrado", "círculo", "circulo", "жёлтый", "желтыи", "newsletter"])
def test_the_fixed_words_of_noise_are_word_pieces_with_and_without_accents(word):
    assert word in WORDS


def test_no_character_of_a_web_text_is_unknown():
    """Also not in a text whose accents BERT's normaliser has stripped."""
    for index in range(2000):
        scene, rng = scene_at(0, "train", index), stream(0, "train", index, "texts")
        text = web_text(scene, scene, rng, NoiseRates()).text
        plain = "".join(c for c in unicodedata.normalize("NFD", text) if not unicodedata.combining(c))
        for word in words_of(text) + words_of(plain):
            assert word[0] in WORDS, word
            assert {f"##{character}" for character in word[1:]} <= WORDS, word


def test_a_word_piece_stands_once_and_special_tokens_are_left_to_the_tokenizer():
    assert len(WORDS) == len(vocabulary())
    assert not {"[PAD]", "[UNK]", "[CLS]", "[DEC]", "[ENC]"} & WORDS
