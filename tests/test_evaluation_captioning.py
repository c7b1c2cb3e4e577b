import pytest
from annotated import config, image_set, write_set
from models import lively_checkpoint

from capfilt.captioners.med import MEDCaptioner
from capfilt.evaluation.captioning import evaluate_captioning

pytest.importorskip("pycocoevalcap", reason="the extra evaluation is not installed")


@pytest.fixture(autouse=True)
def _without_java(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)  # which takes seconds to start


def evaluate(folder, **changes):
    settings = config(folder, "captioning", **changes)
    captioner = MEDCaptioner("tiny", lively_checkpoint(folder, 3, encoder=False), settings.captioning, settings.device)
    return evaluate_captioning(captioner, image_set(settings)), captioner


def test_captions_are_the_captioners_by_beam_search(tmp_path):
    (figures, written), captioner = evaluate(write_set(tmp_path))
    ((_, pixels),) = image_set(config(tmp_path, "captioning", batch_size=4)).batches("again")
    expected = [captions[0].text for captions in captioner.caption(pixels[:, 0], [0] * 4)]
    assert written == [{"image": f"{i}.png", "caption": text} for i, text in enumerate(expected)]
    assert (figures["images"], figures["references"]) == (4, 8)
    assert figures["cider"] >= 0


def test_sampled_captions_do_not_depend_on_the_batch(tmp_path):
    write_set(tmp_path)
    (_, first), _ = evaluate(tmp_path, batch_size=1, captioning={"method": "nucleus"})
    (_, second), _ = evaluate(tmp_path, batch_size=4, captioning={"method": "nucleus"})
    assert first == second
    assert len({caption["caption"] for caption in first}) > 1
