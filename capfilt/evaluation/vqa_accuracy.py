"""The official accuracy of VQAv2: how far an answer agrees with those of ten people.

Source: Antol et al., VQA, arXiv 1505.00468, section 3, and the released evaluation code, whose
normalisation of answers is reproduced exactly, oddities included.
"""

import re
from collections.abc import Sequence

PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
PERIOD = re.compile(r"\.(?!\d)")
MAX_PERIODS = 32  # the released code passes a regex flag of this value as the number of replacements
DIGIT_COMMA = re.compile(r"\d,\d")
ARTICLES = ("a", "an", "the")
_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
NUMBERS = {"none": "0"} | {word: str(number) for number, word in enumerate(_DIGITS)}
_CONTRACTIONS = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've he's
how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've o'clock
oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd
someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've there're there's
they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've when's
where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've wouldn't wouldn't've
y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""
# Maps a contraction that lacks an apostrophe to its right form; the released table has one entry the wrong way round.
CONTRACTIONS = {"somebody'd": "somebodyd"} | {
    word[: mark.start()] + word[mark.end() :]: word for word in _CONTRACTIONS.split() for mark in re.finditer("'", word)
}
AGREEING = 3  # an answer that so many people gave is fully right


def answer_accuracy(answer: str, people: Sequence[str]) -> float:
    """Return the accuracy of an answer, in [0, 1].

    The mean, over leaving out each person in turn, of min(1, people who said the same / 3). Two of ten people
    who agree give 0.6, three 0.9, four 1.

    Args:
        answer: the model's.
        people: the answers of all who were asked, ten in VQAv2; at least one.
    """
    found = normal_form(answer)
    # If all people gave the same answer, it is not normalised, as in the released code.
    given = [strip_punctuation(text) for text in people] if len(set(people)) > 1 else list(people)
    same = [text == found for text in given]
    agreeing = sum(same)
    return sum(min(1.0, (agreeing - own) / AGREEING) for own in same) / len(same)


def normal_form(answer: str) -> str:
    """Return an answer without punctuation and articles, in lower case, with digits for numbers up to ten."""
    text = strip_punctuation(answer.replace("\n", " ").replace("\t", " ").strip())
    words = [NUMBERS.get(word, word) for word in text.lower().split()]
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def strip_punctuation(text: str) -> str:
    """Return a text without punctuation: a mark next to a blank is removed, any other becomes a blank."""
    stripped = text
    joined = bool(DIGIT_COMMA.search(text))
    for mark in PUNCTUATION:
        beside = f"{mark} " in text or f" {mark}" in text
        stripped = stripped.replace(mark, "" if beside or joined else " ")
    return PERIOD.sub("", stripped, count=MAX_PERIODS)
