"""A scan as text for a terminal."""

from collections.abc import Mapping, Sequence

from capfilt.display import counted, in_bytes, one_line
from capfilt.scan.counts import PLACEHOLDER, Repeated
from capfilt.scan.figures import Scan
from capfilt.stats.scores import QUANTILES
from capfilt.stats.terminal import Row, columns, indented, share

_VALUES = 20  # of a table of counts


def render_scan(found: Scan) -> str:
    """Return the figures as tables, with what a bootstrap would make of the shards at the end."""
    sections = [_shards(found), *_passed_over(found), _table("samples", found.statuses, found.looked_at)]
    if found.looked_at:
        sections += [_table("own text", found.text_statuses, found.looked_at), *_examples(found)]
        sections += [_images(found), _sizes(found)]
        sections += [_table("script of texts", found.scripts, sum(found.scripts.values()))]
    if found.languages:
        sections += [_table("language of texts", found.languages, sum(found.languages.values()))]
    sections += _repeated("same file", "texts", found.files) + _repeated("same text", "files", found.texts)
    sections += _repeated("same URL", "texts", found.urls) + _repeated("domain", "files", found.domains)
    return "\n\n".join([*sections, _prospect(found)])


def _shards(found: Scan) -> str:
    of = "" if found.looked_at == found.samples else f", {found.looked_at:,} of them looked at"
    lines = [f"{counted(found.shards, 'shard')}, {counted(found.samples, 'sample')}{of}"]
    damaged = [f"{one_line(url, 200)}: {one_line(damage, 200)}" for url, damage in found.unusable.items()]
    lines += [f"{counted(len(damaged), 'shard')} unreadable, cut or unfinished:", *indented(damaged)] if damaged else []
    unread = [one_line(error, 300) for error in found.unread]
    return "\n".join(lines + (["not all could be looked at:", *indented(unread)] if unread else []))


def _passed_over(found: Scan) -> list[str]:
    rows: list[Row] = [["in no sample", "members", "one of them"]]
    rows += [
        [f"  {one_line(suffix, 20)}", f"{some.members:,}".rjust(7), one_line(some.example, 100)]
        for suffix, some in list(found.passed_over.items())[:_VALUES]
    ]
    left = [some.members for some in list(found.passed_over.values())[_VALUES:]]
    rows += [[f"  ({len(left)} others)", f"{sum(left):,}".rjust(7), ""]] if left else []
    return [columns(rows, left=3)] if found.passed_over else []


def _table(name: str, counts: Mapping[str, int], whole: int) -> str:
    rows: list[Row] = [[name, "count", "share"]]
    rows += [[f"  {value}", count, share(count, whole)] for value, count in list(counts.items())[:_VALUES]]
    left = list(counts.values())[_VALUES:]
    return columns(rows + ([[f"  ({len(left)} others)", sum(left), share(sum(left), whole)]] if left else []))


def _examples(found: Scan) -> list[str]:
    rows: list[Row] = [["why", "one of them"]]
    rows += [[f"  {reason}", one_line(example, 200)] for reason, example in found.examples.items()]
    return [columns(rows, left=2)] if found.examples else []


def _images(found: Scan) -> str:
    looked_at = found.looked_at
    rows: list[Row] = [["images", "count", "share"]]
    rows += [[f"  {name}", count, share(count, looked_at)] for name, count in found.formats.items()]
    counts = {
        "of one colour": found.blank,
        f"placeholders (a file under {PLACEHOLDER} texts or more)": found.placeholders,
        "copies of an earlier file": found.copies,
        "texts that another sample has too": found.repeated_texts,
    }
    if found.alike is not None:
        counts["files that look like another one"] = found.alike
    rows += [[name, count, share(count, looked_at)] for name, count in counts.items()]
    hint = 'for files that look alike: pip install "capfilt[duplicates]"'
    return columns(rows) + ("" if found.alike is not None else f"\n{hint}")


def _sizes(found: Scan) -> str:
    rows: list[Row] = [["", *QUANTILES]]
    rows += [[name, *(f"{values[p]:g}" for p in QUANTILES)] for name, values in found.sizes.items() if values]
    return f"{columns(rows)}\n{in_bytes(found.bytes)} of images"


def _repeated(name: str, different: str, repeated: Sequence[Repeated]) -> list[str]:
    rows: list[Row] = [["samples", different, name, "one of them"]]
    rows += [
        [str(each.samples).rjust(7), str(each.different).rjust(5), one_line(each.value, 50), one_line(each.example, 60)]
        for each in repeated
    ]
    return [columns(rows, left=4)] if repeated else []


def _prospect(found: Scan) -> str:
    """Return what a bootstrap would make of these shards."""
    total = sum(found.usable.values())
    scored = found.usable.get("ok", 0)
    code = " (exit code 3)" if found.damage == "fail" else ""
    left_out = f" and leaves out {counted(len(found.left_out), 'damaged shard')}{code}" if found.left_out else ""
    lines = [f"a bootstrap scores {scored:,} of {counted(total, 'sample')} ({share(scored, total) or '0 %'}){left_out}"]
    reasons = [f"{count:,} {status}" for status, count in found.usable.items() if status != "ok"]
    lines += [f"samples that fail: {', '.join(reasons)}"] if reasons else []
    if found.failing_shards:
        lines.append(f"{counted(len(found.failing_shards), 'shard')} will fail as a whole, by max_failed_share:")
        failing = found.failing_shards.items()
        lines += indented([f"{one_line(url, 200)}: {100 * failed:.1f} %" for url, failed in failing])
    return "\n".join(lines)
