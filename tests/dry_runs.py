"""Dry runs by the command, and what a folder held before and after."""

from pathlib import Path

from click.testing import CliRunner, Result

from capfilt.cli import cli


def tree(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return every path below a folder with its time and its content: equal trees are untouched ones."""
    return {
        str(path.relative_to(folder)): (path.lstat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in sorted(folder.rglob("*"))
    }


def dry_run(folder: Path, command: str, *arguments: object) -> Result:
    """Run a command with --dry-run, and see that nothing below a folder is written."""
    before = tree(folder)
    result = CliRunner().invoke(cli, [command, *map(str, arguments), "--dry-run"])
    assert tree(folder) == before
    assert "Traceback" not in result.output
    return result
