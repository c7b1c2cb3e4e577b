"""The commands on checkpoints: capfilt checkpoint convert and show."""

import click

from capfilt.cli.options import json_option, json_text

LAYOUTS = ("med", "transformers-captioning", "transformers-retrieval")

_size = click.IntRange(min=1)


@click.group()
def checkpoint() -> None:
    """Convert checkpoints between layouts, and show what one is.

    \b
    Example:
      capfilt checkpoint show runs/filter/checkpoint
    """


@checkpoint.command()
@click.argument("source")
@click.argument("target")
@click.option("--to", type=click.Choice(LAYOUTS), default="med", show_default=True, help="Layout of TARGET.")
@click.option("--image-size", type=_size, help="Side of the input, pixels, to which positions are interpolated.")
@click.option("--vision-heads", type=_size, help="Heads of the vision tower, for a .pth whose heads are not 64 wide.")
@click.option("--text-heads", type=_size, help="The same for the text stack.")
def convert(
    source: str, target: str, to: str, image_size: int | None, vision_heads: int | None, text_heads: int | None
) -> None:
    """Write the checkpoint SOURCE into the new folder TARGET in another layout.

    SOURCE is a folder of capfilt's, one of transformers' BLIP, or an original .pth file with vocab.txt, or
    the tokenizer.json of a BlipProcessor, beside it.
    The layouts of transformers are read by BlipForConditionalGeneration and BlipForImageTextRetrieval.

    \b
    Example:
      capfilt checkpoint convert model_base_retrieval_coco.pth filter
      capfilt checkpoint convert runs/captioner/checkpoint hf --to transformers-captioning
    """
    from capfilt.errors import CheckpointError
    from capfilt.med import conversion
    from capfilt.med.fetch import fetch
    from capfilt.storage import local_path

    folder = local_path(target)
    if folder is None:
        raise CheckpointError(f"{target}: is not a folder on this machine; give a local one, and copy it from there")
    click.echo(conversion.convert(fetch(source), folder, to, image_size, (vision_heads, text_heads)))


@checkpoint.command()
@click.argument("path")
@json_option
def show(path: str, as_json: bool) -> None:
    """Show what the checkpoint PATH can do, its sizes, and the hash that names it in ledgers.

    \b
    Example:
      capfilt checkpoint show runs/filter/checkpoint
    """
    from capfilt.med import conversion
    from capfilt.med.fetch import fetch

    values = conversion.describe(fetch(path))
    click.echo(json_text(values) if as_json else "\n".join(_lines(values)))


def _lines(values: dict[str, object], indent: str = "") -> list[str]:
    lines = []
    for key, value in values.items():
        if isinstance(value, dict):
            lines += [f"{indent}{key}:", *_lines(value, indent + "  ")]
        else:
            lines.append(f"{indent}{key}: {' and '.join(value) if isinstance(value, list) else value}")
    return lines
