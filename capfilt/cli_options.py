"""Arguments and options that several commands share."""

import sys
from pathlib import Path

import click

config_argument = click.argument("config", type=click.Path(exists=True, dir_okay=False, path_type=Path))
set_option = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a config key, nested ones with dots."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")


def plain_output() -> bool:
    """Return whether output must do without the characters of bars: it is no terminal, or not one for Unicode."""
    return not sys.stdout.isatty() or "utf" not in (sys.stdout.encoding or "").lower()
