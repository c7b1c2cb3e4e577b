import math
import re
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from capfilt.cli.options import JOBS, job_kind
from capfilt.config import BootstrapConfig, Cluster, Config, ExportConfig, Sampling, describe, dump, load
from capfilt.config.bootstrap import RESULTS
from capfilt.config.demo import DemoConfig
from capfilt.config.schema import section_of
from capfilt.config.sizes import MEDConfig, VisionConfig
from capfilt.config.tasks import NLVR2Config
from capfilt.config.training import FinetuneConfig, PretrainConfig, TrainingCluster
from capfilt.errors import ConfigError

ROOT = Path(__file__).parent.parent
NEEDED = {"input": ["x.tar"], "run": "run", "captioner": "a", "filter": "b"}
KINDS = {
    "bootstrap": "bootstrap",
    "export": "export",
    "pretrain": "pretrain",
    "pretrain_clean": "pretrain",
    "rounds": "rounds",
    "finetune_captioner": "finetune",
    "finetune_filter": "finetune",
    "finetune_vqa": "finetune_vqa",
    "finetune_nlvr2": "finetune_nlvr2",
    **{f"evaluate_{task}": "evaluate" for task in ("retrieval", "captioning", "judgments", "video", "vqa", "nlvr2")},
}


@pytest.fixture
def file(tmp_path):
    def write(text: str) -> Path:
        (tmp_path / "job.yaml").write_text(text)
        return tmp_path / "job.yaml"

    return write


def needed(**changes: object) -> str:
    return yaml.safe_dump({**NEEDED, **changes})


def test_a_misspelt_key_is_refused_with_the_key_that_was_meant(file):
    with pytest.raises(ConfigError, match=r"job\.yaml: bach_size: unknown key; did you mean batch_size\?"):
        load(BootstrapConfig, file(needed(bach_size=3)))


def test_a_misspelt_key_of_a_section_is_refused_with_its_place(file):
    with pytest.raises(ConfigError, match=r"sampling\.topp: unknown key; did you mean top_p\?"):
        load(BootstrapConfig, file(needed(sampling={"topp": 0.9})))


@pytest.mark.parametrize(
    ("key", "places"),
    [("workers", "cluster.workers"), ("web_itm", "policy.web_itm"), ("max_bytes", "images.max_bytes")],
)
def test_a_key_of_a_section_that_stands_outside_of_it_is_told_its_place(file, key, places):
    with pytest.raises(ConfigError, match=rf"job\.yaml: {key}: unknown key; did you mean {places}\?$"):
        load(BootstrapConfig, file(needed(**{key: 1})))


@pytest.mark.parametrize("key", ["cluster", "address"])
def test_the_url_of_a_dashboard_is_no_address_of_a_cluster(file, key):
    url = "http://127.0.0.1:8265"
    kind, text = (BootstrapConfig, needed(cluster={"address": url}))
    if key == "address":
        kind, text = ExportConfig, yaml.safe_dump({"run": "r", "address": url})
    with pytest.raises(ConfigError, match=rf"address: {url} is a dashboard's URL, which capfilt submit takes; give"):
        load(kind, file(text))


def test_a_value_out_of_range_is_named_with_what_was_found(file):
    with pytest.raises(ConfigError, match=r"sampling\.top_p: input should be less than or equal to 1 \(found 1\.5\)"):
        load(BootstrapConfig, file(needed()), ["sampling.top_p=1.5"])


def test_all_problems_are_told_at_once(file):
    with pytest.raises(
        ConfigError, match=r"run: is missing \(folder or URL of the run; .*\n(.|\n)*filter: is missing \(ch"
    ):
        load(BootstrapConfig, file("input: [x.tar]\ncaptioner: a\n"))


def test_overrides_reach_nested_keys_and_win_over_the_file(file):
    config = load(BootstrapConfig, file(needed(seed=1)), ["seed=2", "policy.web_itm=0.7", "sampling.captions=4"])
    assert (config.seed, config.policy.web_itm, config.sampling.captions) == (2, 0.7, 4)


@pytest.mark.parametrize("override", ["seed", "=3", ""])
def test_an_override_without_a_key_and_a_value_says_how_to_write_it(file, override):
    with pytest.raises(ConfigError, match="write it as KEY=VALUE"):
        load(BootstrapConfig, file(needed()), [override])


def test_an_override_whose_value_is_not_yaml_is_refused(file):
    with pytest.raises(ConfigError, match=r"--set sampling=\{: the value is not YAML; quote it for the shell"):
        load(BootstrapConfig, file(needed()), ["sampling={"])


@pytest.mark.parametrize("override", ["run=s3://b/a #1", "run=#1", "input=[a.tar] #1"])
def test_an_override_that_yaml_would_cut_at_a_comment_is_refused(file, override):
    with pytest.raises(ConfigError, match=r"--set \S+=.*: YAML leaves out '#1' as a comment; quote the value"):
        load(BootstrapConfig, file(needed()), [override])

    assert load(BootstrapConfig, file(needed()), ['run="s3://b/a #1"']).run == "s3://b/a #1"


@pytest.mark.parametrize(("value", "listed"), [("data/1.tar", "[data/1.tar]"), ("{0..9}.tar", "['{0..9}.tar']")])
def test_a_single_value_where_a_list_is_wanted_is_told_as_one(file, value, listed):
    with pytest.raises(ConfigError) as told:
        load(BootstrapConfig, file(needed()), [f"input='{value}'"])
    assert str(told.value).endswith(
        f"job.yaml: input: input should be a valid list (found '{value}'); write it as {listed}"
    )
    assert load(BootstrapConfig, file(needed()), [f"input={listed}"]).input == [value]


def test_an_empty_list_is_told(file):
    with pytest.raises(ConfigError, match=r"job\.yaml: input: is empty; give at least one$"):
        load(BootstrapConfig, file(needed()), ["input=[]"])


def test_a_rule_over_several_keys_is_told_in_its_own_words(file):
    with pytest.raises(ConfigError) as told:
        load(BootstrapConfig, file(needed(sampling={"min_length": 30})))
    assert str(told.value).endswith("job.yaml: sampling: min_length 30 is over max_length 20")


@pytest.mark.parametrize(
    ("role", "key", "value"),
    [("captioner", "momentum", {"queue": 64}), ("filter", "prompt", "a photo of ")],
)
def test_a_key_that_the_role_does_not_read_is_refused(file, role, key, value):
    values = {"role": role, "checkpoint": "a", "output": "b", "data": {"shards": ["c"]}, "schedule": {"steps": 1}}
    assert load(FinetuneConfig, file(yaml.safe_dump(values))).role == role
    with pytest.raises(ConfigError, match=rf"job\.yaml: {key} is read by role: \w+, not by role: {role}; leave it out"):
        load(FinetuneConfig, file(yaml.safe_dump({**values, key: value})))


PRETRAINING: dict[str, object] = {"output": "o", "data": {"shards": ["c"]}, "model": {"vocabulary": "v"}}
FILTER: dict[str, object] = {"output": "o", "data": {"shards": ["c"]}, "role": "filter", "checkpoint": "c"}


def test_several_texts_for_an_image_are_refused_where_queues_hold_pairs():
    plain = {"output": "run", "model": {"vocabulary": "vocab.txt"}, "data": {"shards": ["x"]}}
    schedule = {"steps": 1, "texts_per_image": 2}
    assert PretrainConfig.model_validate({**plain, "schedule": schedule}).schedule.texts_per_image == 2
    with pytest.raises(ValueError, match=r"texts_per_image: 2, but momentum takes one .*, or momentum: null"):
        PretrainConfig.model_validate({**plain, "schedule": schedule, "momentum": {}})


@pytest.mark.parametrize(("kind", "values"), [(PretrainConfig, PRETRAINING), (FinetuneConfig, FILTER)])
@pytest.mark.parametrize(
    ("accumulation", "queue", "message"),
    [
        (1, 99, r"99 is not a multiple of the 64 images that schedule\.batch_size: 64 puts in; .*\.queue: 128, "),
        (4, 20, r"20 is .* 16 images that .* puts in with schedule\.accumulation: 4; set momentum\.queue: 16, "),
        (1, 7, r"7 is .*; set momentum\.queue: 64, or a batch size that divides 7$"),
    ],
)
def test_a_queue_that_a_step_does_not_fill_evenly_is_refused(file, kind, values, accumulation, queue, message):
    schedule = {"steps": 1, "batch_size": 64, "accumulation": accumulation}
    path = file(yaml.safe_dump({**values, "schedule": schedule}))
    for whole in (64 // accumulation, 576):
        assert load(kind, path, [f"momentum.queue={whole}"]).momentum.queue == whole
    with pytest.raises(ConfigError, match=rf"job\.yaml: momentum\.queue: {message}"):
        load(kind, path, [f"momentum.queue={queue}"])


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ("image_size=225", r"vision: image_size 225 is not a multiple of patch_size 16"),
        ("text_heads=5", r"text: width 768 cannot be split into 5 heads"),
        ("image_size=32000", r"vision: image_size 32000 makes 4,000,000 patches of 16 pixels, and 65,536 are the most"),
        ("vision_width=1200000000000", r"vision_width: input .* less than or equal to 262144 \(found 1200000000000\)"),
        ("text_depth=120000000", r"text_depth: input .* less than or equal to 1000 \(found 120000000\)"),
    ],
)
def test_sizes_of_which_no_model_can_be_made_are_refused_when_the_config_is_read(file, size, message):
    path = file(yaml.safe_dump({**PRETRAINING, "schedule": {"steps": 1}}))
    assert load(PretrainConfig, path).model.sizes(30524) == MEDConfig(vision=VisionConfig(image_size=224))
    with pytest.raises(ConfigError, match=rf"job\.yaml: model\.{message}$"):
        load(PretrainConfig, path, [f"model.{size}"])


def test_sizes_of_which_the_demo_can_make_no_model_are_refused_when_its_config_is_read():
    with pytest.raises(ConfigError, match=r"model\.vision: width 33 cannot be split into 2 heads"):
        load(DemoConfig, ROOT / "configs/tiny/demo.yaml", ["model.width=33"])


TASK: dict[str, object] = {"output": "o", "role": "nlvr2", "checkpoint": "c"}
SENTENCES = {"files": [{"annotations": "a", "images": "b"}]}


@pytest.mark.parametrize(
    ("kind", "values"),
    [(PretrainConfig, PRETRAINING), (FinetuneConfig, FILTER), (NLVR2Config, {**TASK, "data": SENTENCES})],
)
def test_a_batch_that_workers_cannot_share_out_is_refused(file, kind, values):
    shared = {"schedule": {"steps": 1, "batch_size": 48, "accumulation": 2}, "cluster": {"workers": 8}}
    path = file(yaml.safe_dump({**values, **shared}))
    assert load(kind, path).schedule.batch_size == 48
    with pytest.raises(ConfigError, match=r"batch_size: 40 images .*\.workers: 8 x .*accumulation: 2; .* of 16$"):
        load(kind, path, ["schedule.batch_size=40"])


def test_an_override_below_a_value_is_refused(file):
    with pytest.raises(ConfigError, match="seed holds a value, not a section"):
        load(BootstrapConfig, file(needed(seed=1)), ["seed.deep=2"])


@pytest.mark.parametrize(
    ("text", "message"),
    [("[1, 2]", "holds a list"), ("a: [1", "is not YAML"), ("\0", "is not YAML|cannot be read")],
)
def test_a_file_that_is_no_mapping_is_refused(file, text, message):
    with pytest.raises(ConfigError, match=message):
        load(BootstrapConfig, file(text))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read"):
        load(BootstrapConfig, tmp_path / "none.yaml")


@pytest.mark.parametrize("value", ["run=''", "run=' '", "captioner=''", 'input=["a.tar", ""]'])
def test_an_empty_path_is_refused(file, value):
    """It meant the current folder, into which the whole run went."""
    key = value.partition("=")[0]
    with pytest.raises(ConfigError, match=rf"job\.yaml: {key}: is empty, .* give a value"):
        load(BootstrapConfig, file(needed()), [value])


@pytest.mark.parametrize(
    ("value", "word"),
    [
        ("run=~/runs/1", "~/"),
        ("run=$SCRATCH", "$SCRATCH"),
        ('input=["a.tar", "${DATA}/b.tar"]', "${DATA}/"),
        ("captioner=~me/captioner", "~me/"),
    ],
)
def test_a_path_that_only_a_shell_expands_is_refused(file, value, word):
    """A folder of the name ~ was made in the current one, for the whole run."""
    with pytest.raises(ConfigError, match=rf": begins with {re.escape(word)}, which only a shell expands; write"):
        load(BootstrapConfig, file(needed()), [value])


@pytest.mark.parametrize("run", ["a/~/b", "~b", "s3://bucket/$a", "/a~/$b"])
def test_such_signs_elsewhere_are_taken(file, run):
    assert load(BootstrapConfig, file(needed(run=run))).run == run


@pytest.mark.parametrize("key", ["round", "sampling.captions", "device.threads", "batch_size"])
def test_a_number_that_no_machine_takes_is_refused(file, key):
    with pytest.raises(ConfigError, match=rf"job\.yaml: {key}: input should be less than or equal to "):
        load(BootstrapConfig, file(needed()), [f"{key}=99999999999999999999"])


@pytest.mark.parametrize("kind", [Cluster, TrainingCluster])
def test_gpus_that_ray_cannot_reserve_are_refused(kind):
    assert [kind(gpus_per_worker=count).gpus_per_worker for count in (0.25, 1, 2.0)] == [0.25, 1, 2]
    with pytest.raises(ValidationError, match=r"1\.5 GPUs cannot be reserved; give a whole number, or a share of one"):
        kind(gpus_per_worker=1.5)
    with pytest.raises(ValidationError, match="finite number"):
        kind(gpus_per_worker=math.inf)


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        *((Cluster, key) for key in ("cpus_per_worker", "gpus_per_worker", "decode_cpus")),
        *((TrainingCluster, key) for key in ("cpus_per_worker", "gpus_per_worker")),
    ],
)
def test_a_share_that_ray_cannot_count_is_refused(kind, key):
    with pytest.raises(ValidationError, match=rf"{key}\n +Value error, 5e-05 is too little to reserve; give 0\.001 or"):
        kind(**{key: 5e-5})
    assert getattr(kind(**{key: 0.001}), key) == 0.001


def test_beams_and_greedy_give_one_caption(file):
    with pytest.raises(ConfigError, match="beam gives one caption, 4 were asked for"):
        load(BootstrapConfig, file(needed(sampling={"method": "beam", "captions": 4})))


def test_a_dumped_config_reads_back_equal(file):
    config = load(BootstrapConfig, file(needed(sampling={"top_p": 0.95}, policy={"mix": "best"})))
    assert load(BootstrapConfig, file(dump(config))) == config


def test_a_config_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        Sampling().top_p = 0.5  # type: ignore[misc]


def fields(kind: type[Config]):
    for name, field in kind.model_fields.items():
        yield f"{kind.__name__}.{name}", field
        if section := section_of(field.annotation):
            yield from fields(section)


@pytest.mark.parametrize("job", JOBS)
def test_every_key_says_what_it_means(job):
    assert not [name for name, field in fields(job_kind(job)) if not field.description]


@pytest.mark.parametrize("job", JOBS)
def test_the_description_of_a_job_is_yaml_with_every_key(job):
    assert set(yaml.safe_load(describe(job_kind(job)))) == set(job_kind(job).model_fields)


@pytest.mark.parametrize("path", sorted(ROOT.glob("configs/**/*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_config_is_valid(path):
    assert load(job_kind(KINDS.get(path.stem, "demo")), path)


def test_every_key_is_read_by_some_code():
    code = "\n".join(
        p.read_text() for folder in ("capfilt", "workers", "pipelines") for p in (ROOT / folder).rglob("*.py")
    )
    names = {name.partition(".")[2] for job in JOBS for name, _ in fields(job_kind(job))}
    assert not sorted(name for name in names if f".{name}" not in code)


def test_gpus_are_not_reserved_for_models_on_a_cpu():
    with pytest.raises(
        ValidationError,
        match=r"cluster\.gpus_per_worker: 0\.5 reserves GPUs for models on a CPU; set device\.kind: cuda",
    ):
        BootstrapConfig(**NEEDED, cluster={"gpus_per_worker": 0.5})


@pytest.mark.parametrize("selector", ["A100", "!spot", "in(A100,H100)", "!in(a, b)"])
def test_a_label_selector_is_read_without_blanks(selector):
    assert Cluster(labels={"pool": selector}).labels == {"pool": selector.replace(" ", "")}


@pytest.mark.parametrize("selector", ["", "!!a", "in()", "(a,b)", "in(a", "a,b", "-a"])
def test_what_is_no_label_selector_is_refused(selector):
    with pytest.raises(ValidationError, match=r"selects no label; write a, !a, in\(a,b\) or !in\(a,b\)"):
        Cluster(labels={"pool": selector})


def test_of_each_key_of_a_bootstrap_it_is_known_whether_it_changes_what_the_models_say():
    """A new key belongs in RESULTS, or here if rows are the same whatever its value."""
    places = {"input", "run", "captioner", "filter"}  # checkpoints count by their hashes, shards by the plan
    rules_of_failure = {"damage", "max_failed_share", "max_quarantined"}
    ways_of_working = {"unit_size", "decode_threads", "cluster"}
    afterwards = {"export", "policy"}
    assert {*BootstrapConfig.model_fields} == {*RESULTS} | places | rules_of_failure | ways_of_working | afterwards
