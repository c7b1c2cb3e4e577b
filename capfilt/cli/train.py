"""The commands that train models and measure them: capfilt pretrain, finetune, rounds and evaluate."""

from pathlib import Path

import click

from capfilt.cli.options import config_argument, dry_run_option, json_text, set_option, show_dry_run


@click.command()
@config_argument
@set_option
@dry_run_option
def pretrain(config: Path, overrides: tuple[str, ...], dry_run: bool) -> None:
    """Train MED on clean, human and web shards. The same command resumes.

    \b
    Example:
      capfilt pretrain configs/pretrain.yaml
    """
    from capfilt.config import load
    from capfilt.config.training import PretrainConfig

    settings = load(PretrainConfig, config, overrides)
    from pipelines import pretrain as job

    if dry_run:
        show_dry_run(job.dry_run(settings))
    click.echo(f"checkpoint: {job.run(settings)}")


@click.command(short_help="Train a captioner, a filter, VQA or NLVR2.")
@config_argument
@set_option
@dry_run_option
def finetune(config: Path, overrides: tuple[str, ...], dry_run: bool) -> None:
    """Fine-tune a captioner, a filter, or a model for VQA or NLVR2, as the key role says. The same command resumes.

    \b
    Example:
      capfilt finetune configs/finetune_captioner.yaml
    """
    from capfilt.config.tasks import load_finetuning

    settings = load_finetuning(config, overrides)
    from pipelines import finetune as job

    if dry_run:
        show_dry_run(job.dry_run(settings))
    click.echo(f"checkpoint: {job.run(settings)}")


@click.command(short_help="Repeat training and bootstrapping.")
@config_argument
@set_option
@dry_run_option
def rounds(config: Path, overrides: tuple[str, ...], dry_run: bool) -> None:
    """Repeat: fine-tune captioner and filter, bootstrap with them, pre-train on what is kept; the next round from that.

    The same command resumes the job that was interrupted.

    \b
    Example:
      capfilt rounds configs/rounds.yaml --set rounds=3
    """
    from capfilt.config import load
    from capfilt.config.rounds import RoundsConfig

    settings = load(RoundsConfig, config, overrides)
    from pipelines import rounds as job

    if dry_run:
        show_dry_run(job.dry_run(settings))
    click.echo(f"checkpoint: {job.run(settings, click.echo)}")


@click.command(short_help="Measure a checkpoint on annotated data.")
@config_argument
@set_option
@dry_run_option
def evaluate(config: Path, overrides: tuple[str, ...], dry_run: bool) -> None:
    """Measure a checkpoint: retrieval, captioning, VQA, NLVR2, video, or the filter against people's verdicts.

    Prints the figures; the file named under output also holds all it takes to get them again.

    \b
    Example:
      capfilt evaluate configs/evaluate_retrieval.yaml --set checkpoint=/runs/filter/checkpoint
    """
    from capfilt.config import load
    from capfilt.config.evaluation import EvaluateConfig

    settings = load(EvaluateConfig, config, overrides)
    from pipelines import evaluate as job

    if dry_run:
        show_dry_run(job.dry_run(settings))
    result = job.run(settings)
    click.echo(json_text({key: result[key] for key in ("figures", "left_out")}))
