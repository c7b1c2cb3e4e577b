"""From shards to a captioner and a filter: the jobs of the command line on a real tiny set."""

import json
import shutil
import threading
import time
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from fsspec import filesystem
from pairs import CPU, pixels, sample, schedule, tiny_model, with_texts, write_shard
from pydantic import ValidationError
from safetensors.torch import load_file

from capfilt.captioners.med import MEDCaptioner
from capfilt.cli import cli
from capfilt.config import BootstrapConfig, Device, FilterSettings, Sampling
from capfilt.config.data import DataSettings
from capfilt.config.initial import InitialWeights
from capfilt.config.momentum import MomentumSettings
from capfilt.config.training import FinetuneConfig, PretrainConfig, Tracking, TrainingCluster
from capfilt.errors import CheckpointError, ConfigError, RunError, StoppedError
from capfilt.filters.med import MEDFilter
from capfilt.med import initial
from capfilt.med.checkpoints import Checkpoint, checkpoint_hash, load, load_any, require, save
from capfilt.med.model import MED
from capfilt.med.momentum import MOMENTUM, NOBODY
from capfilt.med.tokenizer import SPECIAL
from capfilt.models import build_models
from capfilt.runs.lease import hold_lease
from capfilt.standing import look_at
from capfilt.training.folder import TrainingRun
from capfilt.training.loop import train
from capfilt.world.shards import World, write_world
from capfilt.world.vocabulary import vocabulary
from pipelines import finetune, pretrain

CONFIGS = Path(__file__).parent.parent / "configs"

FILTER_PARTS = {"vision_proj", "text_proj", "itm_head", "temperature"}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("jobs")
    write_shard(root / "set", map(sample, range(24)))
    return root


def pretraining(root: Path, **changes: object) -> PretrainConfig:
    job = PretrainConfig(
        output=str(root / "start"),
        model=tiny_model(root, dropout=0.0),
        data=DataSettings(shards=[str(root / "set")], in_memory=True),
        schedule=schedule(60, batch_size=8),
        device=CPU,
    )
    return job.model_copy(update=changes)


def finetuning(root: Path, role: str, checkpoint: Path, **changes: object) -> FinetuneConfig:
    job = FinetuneConfig(
        role=role,
        checkpoint=str(checkpoint),
        output=str(root / role),
        data=DataSettings(shards=[str(root / "set")], in_memory=True),
        schedule=schedule(60 if role == "captioner" else 20, batch_size=8),
        device=CPU,
    )
    return job.model_copy(update=changes)


@pytest.fixture(scope="module")
def start(root) -> Path:
    return Path(pretrain.run(pretraining(root)))


@pytest.fixture(scope="module")
def captioner(root, start) -> Path:
    return Path(finetune.run(finetuning(root, "captioner", start)))


@pytest.fixture(scope="module")
def judge(root, start) -> Path:
    return Path(finetune.run(finetuning(root, "filter", start)))


def test_the_start_holds_both_roles_and_each_fine_tuning_one(start, captioner, judge):
    roles = {p: (load(p).model.config.encoder, load(p).model.config.decoder) for p in (start, captioner, judge)}
    assert roles == {start: (True, True), captioner: (False, True), judge: (True, False)}
    assert len({checkpoint_hash(path) for path in roles}) == 3
    parts = {name.split(".")[0] for name, _ in load(captioner).model.named_parameters()}
    assert not FILTER_PARTS & parts


def test_fine_tuning_starts_at_the_weights_of_the_start(start):
    for role in ("captioner", "filter"):
        before = load(start).model.state_dict()
        found = finetune.only(role, load(start)).model.state_dict()
        assert set(found) < set(before)
        assert all(torch.equal(tensor, before[name]) for name, tensor in found.items())


def test_the_captioner_tells_what_the_images_of_its_set_show(root, captioner):
    checkpoint = load(captioner)
    settings = Sampling(method="greedy", repetition_penalty=1.0)
    model = MEDCaptioner("hash", checkpoint, settings, Device(kind="cpu"))
    images = torch.stack([pixels(i, 16) for i in range(24)])
    found = [group[0].text for group in model.caption(images, range(24))]
    right = sum(text == sample(i)["txt"].decode() for i, text in enumerate(found))
    assert right >= 18, found  # chance is one in four


def test_the_filter_scores_and_the_roles_cannot_be_swapped(captioner, judge):
    model = MEDFilter("hash", load(judge), FilterSettings(), Device(kind="cpu"))
    ((score,),) = model.score(torch.zeros(1, 3, 16, 16, dtype=torch.uint8), [["a red dog"]])
    assert 0 < score.itm < 1
    for path, role in ((captioner, "filter"), (judge, "captioner")):
        with pytest.raises(CheckpointError, match=f"not as {role}"):
            require(load(path), role, str(path))


@pytest.mark.parametrize(("kind", "role"), [("captioner", "filter"), ("filter", "captioner")])
def test_a_role_cannot_be_tuned_from_a_checkpoint_without_it(root, captioner, judge, kind, role):
    checkpoint = {"captioner": captioner, "filter": judge}[kind]
    with pytest.raises(CheckpointError, match=f"it can serve as {kind}, not as {role}"):
        finetune.run(finetuning(root, role, checkpoint, output=str(root / "wrong" / role)))


def test_a_checkpoint_of_a_store_leaves_nothing_when_training_begins(root, start, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    filesystem("memory").put(str(start), "/start/checkpoint", recursive=True)
    seen: list[list[Path]] = []
    monkeypatch.setattr("pipelines.training.train", lambda *_: seen.append(list(tmp_path.glob("capfilt-*"))))
    config = finetuning(root, "captioner", start).model_copy(update={"checkpoint": "memory://start/checkpoint"})
    finetune.run(config.model_copy(update={"output": str(tmp_path / "captioner")}))
    assert seen == [[]]


def test_a_finished_job_does_nothing(root, start, captioner):
    """It does not even open its shards."""
    before = {f: (f.stat().st_mtime_ns, f.read_bytes()) for f in root.glob("*/checkpoint/*")}
    (root / "set").rename(root / "away")
    assert pretrain.run(pretraining(root)) == str(start)
    assert finetune.run(finetuning(root, "captioner", start)) == str(captioner)
    (root / "away").rename(root / "set")
    assert {f: (f.stat().st_mtime_ns, f.read_bytes()) for f in root.glob("*/checkpoint/*")} == before


def test_a_job_of_other_settings_is_refused_in_the_same_folder(root, start):
    with pytest.raises(RunError, match=r"config\.yaml: holds 'seed: 0' where 'seed: 1' was given"):
        pretrain.run(pretraining(root, seed=1))


def test_the_seed_alone_decides_a_job(root, start):
    short = {"schedule": schedule(5)}
    again = [
        checkpoint_hash(Path(pretrain.run(pretraining(root, output=str(root / name), seed=seed, **short))))
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    assert again[0] == again[1] != again[2]


def test_clean_shards_with_several_texts_and_web_shards_train_together(tmp_path):
    write_shard(tmp_path / "clean", [with_texts(i, ["a red dog", "two cats"]) for i in range(6)])
    write_shard(tmp_path / "web", map(sample, range(6)))
    data = DataSettings(shards=[str(tmp_path / "clean"), str(tmp_path / "web")])
    job = pretraining(tmp_path, data=data, schedule=schedule(4, texts_per_image=2))
    assert load(Path(pretrain.run(job))).model.config.encoder


def test_shards_that_are_not_there_are_told_at_once(tmp_path):
    with pytest.raises(ConfigError, match="nowhere"):
        pretrain.run(pretraining(tmp_path, data=DataSettings(shards=[str(tmp_path / "nowhere")])))


def test_the_tiny_configs_train_one_from_another(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_world(Path("demo-tiny/human"), World(0, "human", None, 64), 40, 500)
    Path("demo-tiny/vocab.txt").write_text("\n".join([*SPECIAL, *vocabulary()]) + "\n")
    for command, name in (
        ("pretrain", "pretrain"),
        ("finetune", "finetune_captioner"),
        ("finetune", "finetune_filter"),
    ):
        config = CONFIGS / "tiny" / f"{name}.yaml"
        done = CliRunner().invoke(cli, [command, str(config), "--set", "schedule.epochs=1"], catch_exceptions=False)
        folder = Path(done.stdout.removeprefix("checkpoint: ").strip())
        assert load(folder).model.config.encoder == (name != "finetune_captioner")
        assert [line["step"] for line in map(json.loads, (folder.parent / "metrics.jsonl").open())] == [0, 1]


def test_a_filter_inherits_the_queues_and_copies_of_an_original_file(shared, tmp_path):
    state = load_file(shared / "fixtures/a/pretrain_state.safetensors")
    shutil.copy(shared / "fixtures/a/vocab.txt", tmp_path / "vocab.txt")
    torch.save({"model": state}, tmp_path / "model.pth")
    start = load_any(tmp_path / "model.pth", heads=(4, 4))
    config = finetuning(tmp_path, "filter", tmp_path / "model.pth", momentum=MomentumSettings(queue=16))
    momentum = finetune.objective(config, finetune.only("filter", start)).momentum
    assert torch.equal(momentum.image_queue, state["image_queue"].float())
    assert torch.equal(momentum.copy.text_proj.weight, state["text_proj_m.weight"].float())


def test_with_the_captioners_tower_a_filter_learns_the_rest_and_bootstrap_sees_an_image_once(root, start, captioner):
    job = finetuning(root, "filter", start, output=str(root / "blended"), schedule=schedule(2, batch_size=8))
    judge = finetune.run(job.model_copy(update={"vision_from": str(captioner)}))
    before, tower, after = (load(Path(place)).model.state_dict() for place in (start, captioner, judge))
    for name, tensor in after.items():
        assert tensor.equal(tower[name] if name.startswith("vision.") else before[name]) == name.startswith("vision.")
    places = {"captioner": str(captioner), "filter": judge}
    models = build_models(BootstrapConfig(input=["in"], run="out", device=Device(kind="cpu"), **places))
    assert models.captioner.model.vision is models.filter.model.vision


def test_the_tower_of_a_model_of_other_sizes_is_refused(root, start):
    model, tokens = load(start)
    deeper = model.config.vision.model_copy(update={"depth": model.config.vision.depth + 1})
    save(Checkpoint(MED(model.config.model_copy(update={"vision": deeper})), tokens), root / "deeper")
    job = finetuning(root, "filter", start).model_copy(update={"vision_from": str(root / "deeper")})
    with pytest.raises(CheckpointError, match="deeper: its vision tower has other sizes than that of checkpoint"):
        finetune.prepare(job, None)


@pytest.mark.parametrize(
    ("key", "changes"),
    [("drop_path", {"drop_path": 0.1}), ("device.recompute_vision", {"device": {"recompute_vision": 1}})],
)
def test_what_only_a_learning_tower_reads_is_refused_beside_one_that_stays_as_it_is(root, key, changes):
    settings = finetuning(root, "filter", root).model_dump() | {"vision_from": "other"} | changes
    with pytest.raises(ValidationError, match=f"{key} is for a vision tower that is trained"):
        FinetuneConfig.model_validate(settings)


def test_stochastic_depth_is_the_settings_or_else_the_checkpoints_own(root, start):
    own = pretrain_start(root, 0.3)
    found = [finetune.only("filter", own, given).model.config.vision.drop_path for given in (None, 0.0, 0.1)]
    assert found == [0.3, 0.0, 0.1]
    assert finetune.only("captioner", load(start)).model.config.vision.drop_path == 0.0


def pretrain_start(root: Path, drop_path: float) -> Checkpoint:
    settings = pretraining(root).model.model_copy(update={"drop_path": drop_path})
    return initial.start(settings, InitialWeights(), 0)


def test_image_numbers_of_another_training_set_are_not_inherited(shared, tmp_path):
    state = load_file(shared / "fixtures/a/pretrain_state.safetensors")
    shutil.copy(shared / "fixtures/a/vocab.txt", tmp_path / "vocab.txt")
    torch.save({"model": state | {"idx_queue": torch.arange(16)[None]}}, tmp_path / "model.pth")
    start = load_any(tmp_path / "model.pth", heads=(4, 4))
    config = finetuning(tmp_path, "filter", tmp_path / "model.pth", momentum=MomentumSettings(queue=16))
    assert finetune.objective(config, finetune.only("filter", start)).momentum.images.tolist() == [NOBODY] * 16


def test_captions_that_with_their_prompt_are_longer_than_the_model_takes_are_refused(start, root):
    checkpoint = finetune.only("captioner", load(start))
    positions, prompt = checkpoint.model.config.text.positions, "a red dog "
    longest = positions - len(checkpoint.tokenizer.pieces(prompt))
    config = finetuning(root, "captioner", start, prompt=prompt)
    fits = config.data.model_copy(update={"max_tokens": longest})
    over = config.data.model_copy(update={"max_tokens": longest + 1})
    finetune.objective(config.model_copy(update={"data": fits}), checkpoint)
    message = rf"data.max_tokens: {longest + 1}, which with the prompt makes {positions + 1} tokens"
    with pytest.raises(ConfigError, match=message):
        finetune.objective(config.model_copy(update={"data": over}), checkpoint)


def test_a_filter_goes_on_with_copies_and_queues_of_pre_training_at_its_own_image_size(root):
    settings = MomentumSettings(queue=16, decay=0.5)
    before = pretraining(root, output=str(root / "slow"), momentum=settings, schedule=schedule(2, batch_size=8))
    folder = Path(pretrain.run(before))
    left = load_file(folder / MOMENTUM)
    larger = 2 * before.model.image_size
    config = finetuning(root, "filter", folder, momentum=settings, image_size=larger)
    found = finetune.objective(config, finetune.only("filter", load(folder, larger))).momentum
    assert torch.equal(found.image_queue, left["image_queue"])
    assert torch.equal(found.copy.text_proj.weight, left["copy.text_proj.weight"])
    assert not torch.equal(found.copy.text_proj.weight, load_file(folder / "model.safetensors")["text_proj.weight"])
    assert found.images.tolist() == [NOBODY] * 16
    other = config.model_copy(update={"momentum": MomentumSettings(queue=32)})
    with pytest.raises(CheckpointError, match=r"momentum\.safetensors: .* 16 entries, .*; set momentum.queue: 16"):
        finetune.objective(other, finetune.only("filter", load(folder, larger)))


def test_beside_another_checkpoints_tower_the_copy_has_that_tower_and_inherits_the_rest(root, captioner):
    settings = MomentumSettings(queue=16, decay=0.5)
    before = pretraining(root, output=str(root / "towered"), momentum=settings, schedule=schedule(2, batch_size=8))
    folder = Path(pretrain.run(before))
    config = finetuning(root, "filter", folder, momentum=settings, vision_from=str(captioner))
    job = finetune.prepare(config, None)
    momentum, tower = job.objective.momentum, load(captioner).model.vision.state_dict()
    for name, tensor in momentum.copy.vision.state_dict().items():
        assert torch.equal(tensor, tower[name]), name
    assert torch.equal(momentum.copy.text_proj.weight, load_file(folder / MOMENTUM)["copy.text_proj.weight"])


def wait_for(file: Path) -> None:
    deadline = time.monotonic() + 60
    while not file.exists():
        assert time.monotonic() < deadline, f"{file} does not come"
        time.sleep(0.01)


def ask_to_stop(run: Path) -> threading.Thread:
    """Ask a job to stop, from another thread, as soon as its driver holds its lease."""

    def ask() -> None:
        wait_for(run / "lease.json")
        told = CliRunner().invoke(cli, ["stop", str(run)]).output
        (run / "told").write_text(told)

    thread = threading.Thread(target=ask)
    thread.start()
    return thread


def test_a_training_that_is_asked_to_stop_writes_its_state_and_goes_on_to_the_same_bits(root, monkeypatch):
    monkeypatch.setattr("capfilt.runs.stop.POLL", 0.02)
    changes = {"schedule": schedule(100, batch_size=4), "tracking": Tracking(every=3, tensorboard=False)}
    job = pretraining(root, output=str(root / "stopped"), **changes)
    asking = ask_to_stop(root / "stopped")
    with pytest.raises(StoppedError, match=r"stopped: goes on from the state of step \d+$") as stop:
        pretrain.run(job)
    asking.join()

    run = TrainingRun(job.output, job)
    assert (stop.value.exit_code, run.finished) == (4, False)
    assert 0 < run.newest < 100
    standing = look_at(job.output)
    assert (standing.state, standing.training.steps) == ("stopped", 100)
    assert standing.training.done == run.newest
    assert run.newest % 3 == 1  # behind a step whose numbers are written down
    assert "finishes what is in hand\nrun or submit the same again to go on" in (root / "stopped/told").read_text()
    assert not {"stop.json", "lease.json"} & {file.name for file in (root / "stopped").iterdir()}
    whole = pretraining(root, output=str(root / "unstopped"), **changes)
    assert checkpoint_hash(Path(pretrain.run(job))) == checkpoint_hash(Path(pretrain.run(whole)))
    assert (look_at(job.output).state, look_at(job.output).training.done) == ("done", 100)


@pytest.mark.usefixtures("ray_cluster")
def test_workers_that_share_a_training_stop_behind_the_same_step(root):
    changes = {"schedule": schedule(100_000, batch_size=4), "cluster": TrainingCluster(workers=2)}
    job = pretraining(root, output=str(root / "shared"), **changes)
    asking = ask_to_stop(root / "shared")
    with pytest.raises(StoppedError, match=r"shared: goes on from the state of step \d+$"):
        pretrain.run(job)
    asking.join()
    assert TrainingRun(job.output, job).newest > 0


def test_a_second_driver_of_a_training_is_refused(root, start):
    job = pretraining(root, output=str(root / "held"))
    with hold_lease(job.output), pytest.raises(RunError, match="another driver is at work on this run"):
        pretrain.run(job)


def test_a_driver_that_is_refused_leaves_the_settings_and_the_shards_of_the_one_at_work(root):
    job = pretraining(root, output=str(root / "begun"))
    run = TrainingRun(job.output, job)
    with hold_lease(job.output):
        run.begin()
        Path(run.shards).write_bytes(b"being read")
        with pytest.raises(RunError, match="another driver"):
            pretrain.run(job.model_copy(update={"seed": 1}))
    assert run.check()
    assert Path(run.shards).read_bytes() == b"being read"


def test_a_training_that_another_driver_has_taken_ends(root, monkeypatch):
    """As one does whose machine was away for so long that it counted as dead."""
    monkeypatch.setattr("capfilt.runs.lease.RENEW_EVERY", 0.02)
    job = pretraining(root, output=str(root / "taken"), schedule=schedule(2_000, batch_size=4))
    over = threading.Event()

    def take() -> None:
        wait_for(root / "taken/metrics.jsonl")
        while not over.is_set():  # a renewal at the same moment takes it back, and here they are many
            with hold_lease(job.output, force=True) as lease:
                while lease.is_held and not over.wait(0.05):
                    pass

    taking = threading.Thread(target=take)
    taking.start()
    try:
        with pytest.raises(RunError, match=r"another driver has taken this run: pid .*; this one stops"):
            pretrain.run(job)
        assert (root / "taken/lease.json").exists()
    finally:
        over.set()
        taking.join()


def test_a_training_that_was_paused_until_another_driver_took_it_writes_no_more(root, monkeypatch):
    """It goes on before its lease is due to be renewed."""
    job = pretraining(root, output=str(root / "paused"), schedule=schedule(4, batch_size=4))

    def train_late(*arguments: object) -> None:
        with hold_lease(job.output, force=True):
            train(*arguments)

    monkeypatch.setattr("pipelines.training.train", train_late)
    with pytest.raises(RunError, match="another driver has taken this run"):
        pretrain.run(job)
    run = TrainingRun(job.output, job)
    assert not run.finished
    assert not Path(run.metrics).exists()


def test_a_filter_of_a_checkpoint_without_any_starts_with_random_queues(start, root):
    config = finetuning(root, "filter", start, momentum=MomentumSettings(queue=16))
    momentum = finetune.objective(config, finetune.only("filter", load(start))).momentum
    torch.testing.assert_close(momentum.image_queue.norm(dim=0), torch.ones(16))
