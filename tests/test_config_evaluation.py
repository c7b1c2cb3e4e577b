import pytest
import yaml

from capfilt.config import dump, load
from capfilt.config.evaluation import READ_BY, EvaluateConfig
from capfilt.errors import ConfigError

NEEDED = {
    "task": "retrieval",
    "checkpoint": "model",
    "data": {"annotations": "a.json", "images": "images"},
    "output": "result.json",
}


@pytest.fixture
def read(tmp_path):
    def check(**changes: object) -> EvaluateConfig:
        values = {key: value for key, value in {**NEEDED, **changes}.items() if value is not None}
        (tmp_path / "job.yaml").write_text(yaml.safe_dump(values))
        return load(EvaluateConfig, tmp_path / "job.yaml")

    return check


def test_a_section_of_another_task_is_refused_rather_than_ignored(read):
    with pytest.raises(ConfigError, match="captioning is read by captioning, not by task: retrieval; leave it out"):
        read(captioning={"beams": 5})
    with pytest.raises(ConfigError, match="questions is read by vqa"):
        read(questions={"files": [{"questions": "q.json", "images": "x"}]})


@pytest.mark.parametrize("key", ["batch_size", "decode_threads"])
def test_how_images_are_read_is_refused_where_a_task_reads_them_in_its_own_way(read, key):
    sentences = {"files": [{"annotations": "dev.json", "images": "{pair}-img{side}.png"}]}
    assert read(task="nlvr2", data=None, sentences=sentences).task == "nlvr2"
    with pytest.raises(ConfigError, match=f"{key} is read by retrieval, .*, not by task: nlvr2; leave it out"):
        read(task="nlvr2", data=None, sentences=sentences, **{key: 7})


def test_a_task_needs_its_own_data(read):
    with pytest.raises(ConfigError, match="task: retrieval needs the section data"):
        read(data=None)
    with pytest.raises(ConfigError, match="task: nlvr2 needs the section sentences"):
        read(task="nlvr2", data=None)


def test_every_section_of_the_table_is_a_key():
    assert set(READ_BY) <= set(EvaluateConfig.model_fields)


def test_a_part_of_the_captioning_section_keeps_the_originals_other_values(read):
    settings = read(task="captioning", captioning={"max_length": 30}).captioning
    assert (settings.method, settings.beams, settings.repetition_penalty) == ("beam", 3, 1.0)


def test_several_captions_of_an_image_are_refused(read):
    with pytest.raises(ConfigError, match="captions 3: one caption per image is measured"):
        read(task="captioning", captioning={"method": "nucleus", "captions": 3})


def test_a_dumped_config_reads_back_equal(read, tmp_path):
    config = read(task="video", video={"frames": 4}, retrieval={"top_k": 128})
    (tmp_path / "again.yaml").write_text(dump(config))
    assert load(EvaluateConfig, tmp_path / "again.yaml") == config


def test_a_misspelt_key_of_a_section_that_may_be_null_is_refused_with_what_was_meant(read):
    with pytest.raises(ConfigError, match=r"data\.anotations: unknown key; did you mean annotations\?"):
        read(data={"anotations": "a", "annotations": "a", "images": "i"})
