from capfilt.world.captions import true_captions
from capfilt.world.facts import is_true
from capfilt.world.scenes import scene_at, stream


def captions(index: int, count: int = 5) -> list[str]:
    return true_captions(scene_at(0, "train", index), stream(0, "train", index, "captions"), count)


def test_all_captions_are_true_and_none_is_said_twice():
    for index in range(2000):
        texts = captions(index)
        assert len(set(texts)) == 5
        assert all(is_true(text, scene_at(0, "train", index)) for text in texts), texts


def test_captions_have_three_to_fourteen_words():
    lengths = {len(text.split()) for index in range(2000) for text in captions(index)}
    assert (min(lengths), max(lengths)) == (3, 14)


def test_a_scene_always_gets_the_same_captions():
    assert captions(11) == captions(11)
    assert captions(11) != captions(12)
