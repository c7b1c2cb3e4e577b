"""NLVR2's accuracy."""

import pytest
from tasks import small_nlvr2, write_images, write_json

from capfilt.config.tasks import NLVR2Settings, SentenceData, SentenceFile
from capfilt.evaluation.nlvr2 import evaluate_nlvr2
from capfilt.training.statements import Statements


@pytest.fixture
def examples(tmp_path):
    """A model and five sentences, three of them true."""
    write_images(tmp_path, "0.png", "1.png")
    entries = [
        {"sentence": f"{word} dogs", "label": label, "images": ["0.png", "1.png"]}
        for word, label in (("two", "True"), ("red", "False"), ("blue", "True"), ("a", "True"), ("the", "False"))
    ]
    file = SentenceFile(annotations=write_json(tmp_path / "dev.json", entries), images=f"{tmp_path}/{{image}}")
    model, tokens = small_nlvr2(tmp_path)
    return model, Statements(SentenceData(files=[file]), tokens, image_size=32)


@pytest.mark.parametrize(("bias", "accuracy"), [([0.0, 99.0], 60.0), ([99.0, 0.0], 40.0)])
def test_the_accuracy_is_the_share_of_sentences_judged_rightly(examples, bias, accuracy):
    model, data = examples
    model.head[2].bias.data.copy_(model.head[2].bias.data.new_tensor(bias))
    found = evaluate_nlvr2(model, data, NLVR2Settings(batch_size=2))
    assert found == {"sentences": 5, "accuracy": accuracy}
