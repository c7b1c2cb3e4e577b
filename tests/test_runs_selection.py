"""A folder of clean shards is told from others by all that decides what it holds, and by nothing else."""

import pytest

from capfilt.config import BootstrapConfig, ExportConfig, Policy, dump
from capfilt.errors import ConfigError
from capfilt.runs.selection import Selection, load_policy


def folder(keep_empty: bool = False, **rules: object) -> str:
    return Selection.of(ExportConfig(run="run", policy=Policy(**rules), keep_empty=keep_empty)).folder


def test_another_rule_is_another_folder():
    folders = {folder(), folder(web_itm=0.6), folder(mix="best"), folder(seed=1), folder(keep_empty=True)}

    assert len(folders) == 5
    assert all(name.startswith("default-") for name in folders)


def test_a_name_alone_decides_nothing():
    assert folder(name="strict", web_itm=0.9).removeprefix("strict") == folder(web_itm=0.9).removeprefix("default")


def test_neither_do_workers_or_where_the_run_lies():
    configs = (ExportConfig(run="a"), ExportConfig(run="b", workers=8, address="auto"))

    assert len({Selection.of(config).folder for config in configs}) == 1


@pytest.mark.parametrize("whole", [True, False])
def test_a_policy_is_read_from_a_file_of_its_own_and_from_a_clean_folder(tmp_path, whole):
    policy = Policy(name="strict", web_itm=0.95, mix="top_k", top_k=3)
    selection = Selection.of(ExportConfig(run="run", policy=policy))
    (tmp_path / "policy.yaml").write_text(dump(selection if whole else policy))

    assert load_policy(tmp_path / "policy.yaml") == policy
    assert load_policy(tmp_path / "policy.yaml", ["top_k=2"]) == policy.model_copy(update={"top_k": 2})


def test_a_misspelt_rule_is_told_as_one_of_a_policy(tmp_path):
    (tmp_path / "policy.yaml").write_text("web_itmm: 0.9")

    with pytest.raises(ConfigError, match=r"policy\.yaml: web_itmm: unknown key; did you mean web_itm\?"):
        load_policy(tmp_path / "policy.yaml")


def test_a_rule_out_of_range_in_a_clean_folder_is_told_and_nothing_else(tmp_path):
    selection = dump(Selection.of(ExportConfig(run="run", policy=Policy(web_itm=0.95))))
    (tmp_path / "policy.yaml").write_text(selection.replace("0.95", "1.95"))

    with pytest.raises(ConfigError, match=r"^\S*/policy\.yaml: policy\.web_itm: [^\n]* \(found 1\.95\)$"):
        load_policy(tmp_path / "policy.yaml")


@pytest.mark.parametrize(
    "job",
    [
        dump(BootstrapConfig(input=["a"], run="b", captioner="c", filter="d")),
        dump(ExportConfig(run="b")),
        "policy: {web_itm: 0.9}",
    ],
)
def test_the_config_of_a_job_is_told_in_one_line(tmp_path, job):
    (tmp_path / "my.yaml").write_text(job)

    with pytest.raises(ConfigError) as told:
        load_policy(tmp_path / "my.yaml")
    assert str(told.value) == (
        f"{tmp_path}/my.yaml: is the config of a job; give a file that holds only what is under its policy key"
    )
