"""The demo: a rendered world, two small models trained on it, and the main job from noisy to clean shards."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from capfilt.config import BootstrapConfig, Cluster, Device, Sampling
from capfilt.config.data import DataSettings
from capfilt.config.demo import DemoConfig
from capfilt.config.training import FinetuneConfig, PretrainConfig, Schedule
from capfilt.dry_run import DryRun
from capfilt.errors import RunError, StoppedError
from capfilt.med.tokenizer import SPECIAL
from capfilt.models import build_models, checkpoint_hashes
from capfilt.query import open_run
from capfilt.rounds import checkpoint_of, clean_of
from capfilt.runs import begun_with, find_run, load_run
from capfilt.runs.lease import require_free
from capfilt.runs.stop import JOBS, Stop
from capfilt.stats import render_text, summarise
from capfilt.storage import absolute
from capfilt.training.folder import TrainingRun
from capfilt.verify import verify
from capfilt.world.noise import NoiseRates
from capfilt.world.shards import World, write_world
from capfilt.world.truth import Verdicts, judge
from capfilt.world.vocabulary import vocabulary
from pipelines import bootstrap, finetune, pretrain
from pipelines.resolving import as_begun
from workers.driving import driving

SHARD = 500  # samples in a shard
DISK_BYTES = 500e6  # upper bound: four models of the default size with their states, and the shards


def run(config: DemoConfig, say: Callable[[str], None]) -> dict[str, object]:
    """Run the whole demo, report each step, and return its figures. A second run resumes.

    Raises:
        RunError: a file of the bootstrap is damaged, so no model is trained on it, or another driver is at work on the
            demo.
        StoppedError: the demo or a job was asked to stop, even if the job then finished, unless it was the last.
    """
    stop = Stop()
    with driving(absolute(config.output), JOBS, stop):
        return _run_steps(config, stop, say)


def _run_steps(config: DemoConfig, stop: Stop, say: Callable[[str], None]) -> dict[str, object]:
    """Run the steps one after the other, each unless a stop was asked for, and return the figures."""
    root, started = Path(config.output), time.monotonic()

    def step(text: str) -> None:
        if stop.asked:
            raise StoppedError(f"{root}: goes on with {text}")
        _tell(say, started, text)

    step("1 of 6  Rendering scenes: clean captions by people, noisy texts from the web")
    _write_worlds(config, root)
    step("2 of 6  Pre-training MED on human and web texts: ITC + ITM + LM")
    start = pretrain.run(_pretraining(config, root, "pretrained", ["human", "web"], config.pretraining), stop)
    tuned = _finetunings(config, root, start)
    step("3 of 6  Fine-tuning two models from one start: the captioner")
    captioner = finetune.run(tuned[0], stop)
    step("3 of 6  Fine-tuning two models from one start: the filter")
    judge_ = finetune.run(tuned[1], stop)
    step("4 of 6  Bootstrapping the web shards: captions, scores, ledger, clean shards")
    job = _bootstrapping(config, root, captioner, judge_)
    say(bootstrap.run(job, build_models, checkpoint_hashes(job), stop))
    step("5 of 6  Checking and judging the run")
    figures = _report(config, job, say)
    step("6 of 6  Pre-training a new MED on the clean shards, from random weights")
    pretrain.run(_retraining(config, root, job), stop)
    say(_losses(root / "retrained" / "metrics.jsonl"))
    figures["seconds"] = round(time.monotonic() - started, 1)
    (root / "figures.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    _tell(say, started, f"Done. Everything is in {root}; look at it with: capfilt stats {job.run}")
    return figures


def dry_run(config: DemoConfig) -> DryRun:
    """Return what run would do, and what would stop it. Nothing is written.

    Each step reads what the one before it writes, so only what exists already is checked.
    """
    dry, root = DryRun("demo"), Path(config.output)
    with dry.examine():
        require_free(absolute(config.output))
    start = _pretraining(config, root, "pretrained", ["human", "web"], config.pretraining)
    tuned = _finetunings(config, root, checkpoint_of(start))
    job = _bootstrapping(config, root, *map(checkpoint_of, tuned))
    samples = config.human_samples + config.web_samples + config.unseen_samples
    dry.tell("renders", f"{samples:,} scenes of {config.model.image_size} pixels")
    trainings: list[PretrainConfig | FinetuneConfig] = [start, *tuned, _retraining(config, root, job)]
    for training in trainings:
        with dry.examine():
            run = TrainingRun(training.output, training)
            run.check()
            state = "is done" if run.finished else f"goes on from step {run.newest}" if run.newest else "from step 0"
            dry.tell("trains", f"{run.name}: {training.schedule.steps or 'some epochs of'} steps; {state}")
    with dry.examine():
        hashes = checkpoint_hashes(job) if begun_with(job.run) else {}
        dry.tell(
            "bootstraps",
            f"{config.web_samples + config.unseen_samples:,} samples in {find_run(as_begun(job), hashes).root}",
        )
    dry.writes(config.output, DISK_BYTES)
    return dry


def _retraining(config: DemoConfig, root: Path, job: BootstrapConfig) -> PretrainConfig:
    return _pretraining(config, root, "retrained", ["human", clean_of(job)], config.retraining)


def _tell(say: Callable[[str], None], started: float, text: str) -> None:
    say(f"\n[{time.monotonic() - started:4.0f} s] {text}")


def _write_worlds(config: DemoConfig, root: Path) -> None:
    """Write the shards and the tokenizer's vocabulary; the same arguments give the same bytes.

    A split whose last shard is not finished is written again, since an earlier start was killed meanwhile.
    """
    for split, samples, rates in (
        ("human", config.human_samples, None),
        ("web", config.web_samples, NoiseRates()),
        ("unseen", config.unseen_samples, NoiseRates()),
    ):
        world = World(config.seed, split, rates, config.model.image_size)
        if not (root / split / f"{(samples - 1) // SHARD:05d}_stats.json").exists():
            write_world(root / split, world, samples, SHARD)
    (root / "vocab.txt").write_text("\n".join([*SPECIAL, *vocabulary()]) + "\n", encoding="utf-8")


def _data(root: Path, folders: list[str]) -> DataSettings:
    return DataSettings(shards=[str(root / folder) for folder in folders], in_memory=True)


def _pretraining(config: DemoConfig, root: Path, name: str, folders: list[str], schedule: Schedule) -> PretrainConfig:
    return PretrainConfig(
        output=str(root / name),
        model=config.model.settings(str(root / "vocab.txt")),
        data=_data(root, folders),
        schedule=schedule,
        itm_warmup=config.itm_warmup,
        seed=config.seed,
        device=config.device,
    )


def _finetunings(config: DemoConfig, root: Path, start: str) -> list[FinetuneConfig]:
    """Return the jobs of the captioner and of the filter."""
    captioner, judge_ = (_finetuning(config, root, role, start) for role in ("captioner", "filter"))
    if config.shared_vision:
        judge_ = judge_.model_copy(update={"vision_from": checkpoint_of(captioner)})
    return [captioner, judge_]


def _finetuning(config: DemoConfig, root: Path, role: str, start: str) -> FinetuneConfig:
    return FinetuneConfig(
        role=role,
        checkpoint=start,
        output=str(root / role),
        data=_data(root, ["human"]),
        schedule=config.captioner if role == "captioner" else config.filter,
        seed=config.seed,
        device=config.device,
    )


def _bootstrapping(config: DemoConfig, root: Path, captioner: str, judge_: str) -> BootstrapConfig:
    return BootstrapConfig(
        input=[str(root / "web"), str(root / "unseen")],
        run=str(root / "runs" / "web"),
        captioner=captioner,
        filter=judge_,
        seed=config.seed,
        batch_size=config.batch_size,
        unit_size=SHARD // 2,
        # The original's repetition penalty would keep a caption from naming a colour twice, and models trained for
        # minutes need a smaller nucleus than BLIP's 0.9.
        sampling=Sampling(repetition_penalty=1.0, top_p=0.5),
        policy=config.policy,
        device=Device(kind="cpu", dtype="float32"),
        cluster=Cluster(workers=config.workers),
    )


def _report(config: DemoConfig, job: BootstrapConfig, say: Callable[[str], None]) -> dict[str, object]:
    """Report the ledger's figures, verify every file, and judge the texts of scenes that no model was trained on."""
    run = load_run(job.run)
    with open_run(job.run) as opened:
        say(render_text(summarise(opened)))
    if problems := verify(run):
        say("\n".join(["", *problems]))
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise RunError(f"verify: {problems[0]}{more}; remove {job.run}, and run the demo again")
    say("\nverify: every file of the run is whole, every sample accounted for")
    unseen = [shard for shard in run.plan() if Path(shard.url).parent.name == "unseen"]
    verdicts = judge(run, unseen, job.policy)
    say(f"\nAgainst the truth, on {sum(shard.samples for shard in unseen):,} scenes that no model was trained on:\n")
    say(_table({**verdicts, "all": sum(verdicts.values(), Verdicts())}))
    counts = {source: asdict(verdict) for source, verdict in verdicts.items()}
    return {"config": config.model_dump(mode="json"), "verdicts": counts}


def _table(verdicts: dict[str, Verdicts]) -> str:
    lines = [f"{'texts':<12}{'count':>7}{'true':>9}{'true kept':>12}{'wrong dropped':>15}{'kept are true':>15}"]
    lines += [
        f"{source:<12}{v.texts:>7,}{v.true_share:>9.1%}{v.recall:>12.1%}{v.rejection:>15.1%}{v.precision:>15.1%}"
        for source, v in verdicts.items()
    ]
    return "\n".join(lines)


def _losses(metrics: Path) -> str:
    lines = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    first, last = lines[0], lines[-1]  # the same one after a single step
    return "losses: " + ", ".join(
        f"{name} {first[name]:.2f} -> {last[name]:.2f}" for name in ("lm", "itc") if name in first and name in last
    )
