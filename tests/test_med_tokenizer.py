"""Text to ids and back."""

import json
import re
from pathlib import Path

import pytest
import torch
from models import WORDS, write_vocabulary

from capfilt.errors import CheckpointError
from capfilt.med.tokenizer import SPECIAL, Tokenizer


@pytest.fixture
def tokenizer(tmp_path) -> Tokenizer:
    return Tokenizer(write_vocabulary(tmp_path))


def test_the_two_added_tokens_stand_behind_the_vocabulary(tokenizer):
    size = len(SPECIAL) + len(WORDS)
    assert (tokenizer.dec, tokenizer.enc, len(tokenizer)) == (size, size + 1, size + 2)
    assert (tokenizer.pad, tokenizer.cls, tokenizer.end) == (0, 2, 3)


@pytest.mark.parametrize("special", [*SPECIAL, "[DEC]", "[ENC]", "[unused1]"])
@pytest.mark.parametrize("form", ["{}", "a {} dog", "dog{}", "{0}{0}"])
def test_a_special_token_in_a_text_is_text(tokenizer, special, form):
    """Else a web page could end its caption early, or make a filter's first token out of its own text."""
    ids = tokenizer.pieces(form.format(special))
    assert not {0, 2, 3, 4, tokenizer.dec, tokenizer.enc} & set(ids)


def test_joiners_say_nothing_to_a_model(tokenizer):
    """So that they may stay in cleaned texts without a change of any score."""
    assert tokenizer.pieces("dog\u200d grass\u200c 犬\u200d犬") == tokenizer.pieces("dog grass 犬犬")


@pytest.mark.parametrize("most", range(3, 9))
def test_a_long_text_is_cut_and_still_ends(tokenizer, most):
    ids = tokenizer.encode("a red dog on the grass", tokenizer.cls, most)
    assert ids == [tokenizer.cls, *tokenizer.pieces("a red dog on the grass")[: most - 2], tokenizer.end]
    assert len(ids) == most


@pytest.mark.parametrize("text", ["", "a", "a red dog on the grass", "two dogs", "dogs"])
def test_known_words_come_back(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text, tokenizer.dec, 40)) == text


def test_many_texts_are_encoded_and_decoded_as_one_by_one(tokenizer):
    texts = ["", "a red dog on the grass", "Two DOGS!", "zebra [SEP] 犬", "dogs " * 30]
    encoded = tokenizer.encode_all(texts, tokenizer.enc, 9)
    assert encoded == [tokenizer.encode(text, tokenizer.enc, 9) for text in texts]
    assert tokenizer.decode_all(encoded) == [tokenizer.decode(ids) for ids in encoded]
    assert tokenizer.decode_all(encoded)[1] == "a red dog on the grass"
    assert tokenizer.encode_all([], tokenizer.enc, 9) == tokenizer.decode_all([]) == []


class TestWhatIsReadAgain:
    TEXTS = (
        "a man's hand, o'clock. don't! they're here? i'm",
        "the dogs' food 'stop' rock 'n' roll ''",
        "e-mail me@home (now): 5.5 & $3 #tag",
    )

    @pytest.fixture
    def vocabulary(self, tmp_path):
        pieces = {piece for text in self.TEXTS for piece in re.findall(r"\w+|[^\w\s]", text)}
        (tmp_path / "vocab.txt").write_text("\n".join([*SPECIAL, *sorted(pieces)]) + "\n")
        return tmp_path / "vocab.txt"

    def test_it_is_what_the_originals_tokenizer_reads(self, vocabulary):
        transformers = pytest.importorskip("transformers")
        theirs, tokenizer = transformers.BertTokenizer.from_pretrained(vocabulary.parent), Tokenizer(vocabulary)
        for text in self.TEXTS:
            ids = tokenizer.pieces(text)
            assert tokenizer.decode(ids) == theirs.decode(ids, clean_up_tokenization_spaces=True), text

    def test_apostrophes_stand_as_people_write_them_and_mean_the_same_tokens(self, vocabulary):
        tokenizer = Tokenizer(vocabulary)
        text = tokenizer.decode(tokenizer.pieces(self.TEXTS[0]))
        assert text == self.TEXTS[0]
        assert tokenizer.pieces(text) == tokenizer.pieces(self.TEXTS[0])


def test_contractions_of_any_pieces_are_joined_as_by_the_original(tmp_path):
    """Such pieces are of no text that is split, but a caption may be drawn with them."""
    words = [*SPECIAL, "do", "dog", "n", "'", "##'", "##t", "##s", "##m", "##ve", "##re"]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    rows = [["dog", "'", f"##{end}"] for end in ("s", "m", "ve", "re")] + [["do", "n", "##'", "##t"]]

    texts = Tokenizer(tmp_path / "vocab.txt").decode_all([[words.index(word) for word in row] for row in rows])

    assert texts == ["dog's", "dog'm", "dog've", "dog're", "don't"]


def test_case_and_accents_are_folded_and_unknown_words_told(tokenizer):
    assert tokenizer.pieces("A RÉD Dog") == tokenizer.pieces("a red dog")
    assert tokenizer.pieces("zebra 犬") == [1, 1]


def test_special_tokens_are_left_out_of_a_text_and_an_unknown_word_is_not(tokenizer):
    dog, unknown, cat = tokenizer.pieces("dog zebra cat")
    mask = SPECIAL.index("[MASK]")
    assert (
        tokenizer.decode([tokenizer.cls, dog, tokenizer.pad, unknown, mask, tokenizer.enc, cat, tokenizer.dec])
        == "dog [UNK] cat"
    )


def test_what_stands_behind_the_end_is_not_read(tokenizer):
    dog, cat = tokenizer.pieces("dog cat")
    assert tokenizer.decode([tokenizer.dec, dog, tokenizer.end, cat, tokenizer.pad]) == "dog"


def test_a_text_that_begins_inside_a_word_has_no_mark_of_that(tokenizer):
    start, piece = tokenizer.pieces("dogs")
    assert tokenizer.vocabulary[piece] == "##s"
    assert tokenizer.decode([piece, tokenizer.end]) == "s"
    assert tokenizer.decode([piece, start, piece]) == "s dogs"


def test_a_batch_is_padded_on_the_right_and_says_where(tokenizer):
    ids, keep = tokenizer.batch([[2, 7, 3], [2, 3], [2, 7, 8, 9, 3]])

    assert ids.tolist() == [[2, 7, 3, 0, 0], [2, 3, 0, 0, 0], [2, 7, 8, 9, 3]]
    assert keep.dtype == torch.bool
    assert keep.sum(1).tolist() == [3, 2, 5]
    assert torch.equal(keep, ids != 0)


def test_one_token_a_line_and_lines_end_at_line_feeds_alone(tmp_path):
    """Python's splitlines would cut at U+2028 and shift the id of every word behind it."""
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join([*SPECIAL, "\u2028", "a\x85", "dog"]), encoding="utf-8")
    tokenizer = Tokenizer(path)
    assert tokenizer.pieces("dog") == [7]
    assert len(tokenizer) == 10


def test_a_doubled_word_does_not_move_the_added_tokens(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join([*SPECIAL, "dog", "dog"]) + "\n")
    assert (Tokenizer(path).dec, len(Tokenizer(path))) == (7, 9)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"no vocabulary at .*vocab\.txt; put bert-base-uncased's vocab\.txt there, or transformers' tokenizer"),
        (b"", r"vocab\.txt: lacks \[PAD\], \[UNK\], \[CLS\], \[SEP\], \[MASK\]; it is not a BERT vocabulary"),
        (b"[PAD]\n[UNK]\n[CLS]\n[SEP]\ndog\n", r"vocab\.txt: lacks \[MASK\]; it is not a BERT vocabulary"),
        (b"[PAD]\n\xff\xfe", r"vocab\.txt: is not UTF-8 at byte 6; it is not a BERT vocabulary"),
    ],
)
def test_another_file_is_refused(tmp_path, content, message):
    path = tmp_path / "vocab.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        Tokenizer(path)


class TestATokenizerOfTransformers:
    """A folder that transformers 5 saved has its words in tokenizer.json alone."""

    @pytest.fixture
    def saved(self, tmp_path) -> Path:
        transformers = pytest.importorskip("transformers")
        words = [*SPECIAL, *WORDS, "'", "!", "caf", "##e", "犬"]
        (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
        self.theirs = transformers.BertTokenizer.from_pretrained(tmp_path)
        self.theirs.save_pretrained(tmp_path / "saved")
        return tmp_path / "saved/tokenizer.json"

    def test_texts_have_the_ids_that_a_vocab_txt_gives(self, saved):
        tokenizer, plain = Tokenizer(saved), Tokenizer(saved.parents[1] / "vocab.txt")
        assert tokenizer.vocabulary == plain.vocabulary
        for text in ("Two DOGS' Café!", "a red\tdog\u200d 犬犬 zebra", "dogs"):
            ids = tokenizer.pieces(text)
            assert ids == plain.pieces(text) == self.theirs(text, add_special_tokens=False).input_ids, text
            assert tokenizer.decode(ids) == plain.decode(ids), text

    def test_blips_two_tokens_may_be_among_the_added_ones(self, saved):
        before = Tokenizer(saved).vocabulary
        self.theirs.add_special_tokens({"bos_token": "[DEC]", "extra_special_tokens": ["[ENC]"]})
        self.theirs.save_pretrained(saved.parent)
        tokenizer = Tokenizer(saved)
        assert tokenizer.vocabulary == before
        assert self.theirs.convert_tokens_to_ids(["[DEC]", "[ENC]"]) == [tokenizer.dec, tokenizer.enc]

    @pytest.mark.parametrize(
        ("part", "key", "value", "message"),
        [
            ("normalizer", "lowercase", False, r"its normalizer is BertNormalizer\(.*lowercase=False\), unlike BLIP's"),
            ("normalizer", "strip_accents", False, "its normalizer is .*strip_accents=False"),
            ("pre_tokenizer", "type", "Whitespace", r"its pre_tokenizer is Whitespace\(\), unlike BLIP's; put bert-"),
            ("model", "type", "WordLevel", "its model is WordLevel, unlike .*; put .* vocab.txt beside it$"),
            ("model", "max_input_chars_per_word", 9, "its max_input_chars_per_word is 9, unlike"),
            ("model", "continuing_subword_prefix", "@@", "its continuing_subword_prefix is @@, unlike"),
            ("model", "vocab", {word: 2 * i for i, word in enumerate(SPECIAL)}, "its ids are not 0 to 4, each once"),
            ("model", "vocab", dict.fromkeys(SPECIAL, 0), "its ids are not 0 to 4, each once; copy it again"),
            ("model", "vocab", {"a": -1}, "is not a tokenizer: .*; copy it again"),
            ("model", "vocab", {"dog": 0}, r"lacks \[PAD\], .*; it is not a BERT vocabulary"),
        ],
    )
    def test_one_that_gives_other_ids_is_refused(self, saved, part, key, value, message):
        values = json.loads(saved.read_text(encoding="utf-8"))
        values[part] |= {key: value}
        values["added_tokens"] = []
        saved.write_text(json.dumps(values), encoding="utf-8")
        with pytest.raises(CheckpointError, match=rf"tokenizer\.json: {message}"):
            Tokenizer(saved)

    @pytest.mark.parametrize("added", ["zebra", "[ENC]"])
    def test_one_with_another_token_behind_its_words_is_refused(self, saved, added):
        number = len(Tokenizer(saved).vocabulary)
        self.theirs.add_tokens([added])
        self.theirs.save_pretrained(saved.parent)
        with pytest.raises(CheckpointError, match=rf"it adds the token {re.escape(added)} as {number}, unlike BLIP's"):
            Tokenizer(saved)


@pytest.mark.parametrize("name", ["vocab.txt", "tokenizer.json"])
def test_a_file_of_another_kind_is_not_read_whole(tmp_path, name):
    with (tmp_path / name).open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(CheckpointError, match=f"{name}: has {1 << 40} bytes, more than any BERT vocabulary; copy it"):
        Tokenizer(tmp_path / name)
