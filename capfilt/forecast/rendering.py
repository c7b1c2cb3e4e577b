"""A forecast as text for a terminal."""

from datetime import timedelta

from capfilt.calibrate.curves import Rate
from capfilt.display import counted, in_bytes, one_line
from capfilt.forecast.estimates import Estimate
from capfilt.forecast.figures import ALLOWANCE, START, Forecast
from capfilt.forecast.pace import Pace
from capfilt.planning import named_damage
from capfilt.stats.terminal import Row, columns, indented

NOT_COVERED = (
    "other work on the machines, workers that share one and slow each other down, other disks, networks and devices "
    "than those measured on, waiting for nodes, and samples unlike the measured ones"
)


def render_forecast(found: Forecast) -> str:
    """Return what a job will take as tables, each number with its range, and what the range covers."""
    sections = [_shards(found), *_speed(found), _totals(found), *_kept(found.kept), _range(found)]
    return "\n\n".join(section for section in sections if section)


def _shards(found: Forecast) -> str:
    survey = found.survey
    lines = [f"{survey}, {in_bytes(survey.bytes.likely)}"]
    if not survey.whole:
        lines.append("the rest is taken to be like these; --all looks at every shard")
    done = survey.rest.done
    lines += [f"{counted(done, 'sample')} done already; this is what is left"] if done else []
    left_out = [f"left out: {one_line(named_damage(shard), 200)}" for shard in survey.left_out]
    return "\n".join(lines + indented(left_out))


def _speed(found: Forecast) -> list[str]:
    pace, rehearsal = found.pace, found.rehearsal
    if pace is None:
        return []
    rate = f"{1 / pace.seconds.likely:,.2f} images/s for a worker"
    if rehearsal is None:
        return [f"{rate}, as given"]
    rows: list[Row] = [
        ["a thread takes of an image", "ms", ""],
        *(
            [name, f"{1000 * min(values):.2f} to {1000 * max(values):.2f}", counted(len(values), what)]
            for name, values, what in (
                ("  captioner and filter", rehearsal.model, "repeat"),
                ("  decoding", rehearsal.decode, "repeat"),
                ("  reading", rehearsal.read, "place"),
            )
        ),
    ]
    images = counted(len(rehearsal.model) * rehearsal.samples, "image")
    measured = f"measured here on {images} in batches of {rehearsal.batch_size}"
    return [columns(rows), f"{rate}, {measured}\nbound by {pace.bound}: {_advice(pace)}"]


def _advice(pace: Pace) -> str:
    threads, cores = pace.threads_needed, f"{pace.cores_needed:.1f} CPU cores of a worker are busy then"
    if pace.bound == "decoding":
        return f"decode_threads are too few; with {threads} the models would not wait; {cores}"
    if pace.bound == "reading":
        return "bring the shards nearer, or use larger ones"
    if pace.bound == "the CPU cores":
        return f"models and decoding share them; cluster.cpus_per_worker reserves them; {cores}"
    return f"{counted(threads, 'decoding thread')} would keep up with them; {cores}"


def _totals(found: Forecast) -> str:
    rows: list[Row] = [
        ["left to do", "likely", "from", "to"],
        ["  samples", *(f"{count:,.0f}" for count in _order(found.survey.samples_left))],
    ]
    if found.hours is not None:
        rows.append(["  time", *(_time(hours) for hours in _order(found.hours))])
    if found.device_hours is not None:
        rows.append([f"  {found.device} hours", *map(_amount, _order(found.device_hours))])
    if found.cost is not None:
        rows.append(["  cost", *map(_amount, _order(found.cost))])
    for name, value in (("  ledger", found.ledger_bytes), ("  clean shards", found.clean_bytes)):
        if value is not None:
            rows.append([name, *map(in_bytes, _order(value))])
    held = f"; held: {counted(found.devices, found.device)}" if found.hours is not None else ""
    return f"{columns(rows)}\nworkers with something to do: {found.workers}{held}"


def _order(value: Estimate) -> tuple[float, float, float]:
    return value.likely, value.low, value.high


def _amount(value: float) -> str:
    return f"{value:,.2f}" if value >= 1 else f"{value:.2g}"


def _time(hours: float) -> str:
    return str(timedelta(seconds=round(3600 * hours)))


def _kept(kept: dict[str, Rate]) -> list[str]:
    rows: list[Row] = [["kept in the rehearsal", "share", "from", "to", "texts"]]
    rows += [
        [f"  {source}", *(f"{100 * each:.1f} %" for each in (r.share, r.low, r.high)), r.whole]
        for source, r in kept.items()
    ]
    return [columns(rows)] if kept else []


def _range(found: Forecast) -> str:
    if found.hours is None:
        return ""
    parts = ["of the rehearsal's repeats"] if found.rehearsal else []
    parts += [] if found.survey.whole else ["of the shards that were looked at"]
    spread = f"the spread {' and '.join(parts)} (95 of 100 cases), " if parts else ""
    return (
        f"from and to: {spread}{START.low:.0f} to {START.high:.0f} s until workers run, a last unit that runs alone, "
        f"and {ALLOWANCE:.0%} on the upper end for stragglers and restarts.\nNot in them: {NOT_COVERED}."
    )
