"""Ratios of rounds that were measured side by side, and the tables in which all that was found is shown."""

from statistics import median
from typing import Any

from rounds import spread
from versus_sides import DOCUMENTED

OURS, THEIRS = "capfilt", "transformers"
EXACT, HALF = "float32", "bfloat16"
STAGES = ("vision", "keys", "text", "sampling")


def compare(seconds: dict[str, list[float]]) -> dict[str, dict[str, object]]:
    """Return how many times faster capfilt is: at equal precision, at its best, and against the documented way."""
    mine = [name for name in seconds if name.startswith(OURS)]
    best = min(mine, key=lambda name: median(seconds[name]))
    pairs = {
        "float32 / float32": (f"{OURS} {EXACT}", f"{THEIRS} {EXACT}"),
        "bfloat16 / bfloat16": (f"{OURS} {HALF}", f"{THEIRS} {HALF}"),
        "best / float32": (best, f"{THEIRS} {EXACT}"),
        "float32 / documented float32": (f"{OURS} {EXACT}", f"{THEIRS} {EXACT}{DOCUMENTED}"),
        "best / documented float32": (best, f"{THEIRS} {EXACT}{DOCUMENTED}"),
    }
    return {
        name: {"capfilt": one, "transformers": other, **ratio(seconds[other], seconds[one])}
        for name, (one, other) in pairs.items()
        if one in seconds and other in seconds
    }


def ratio(slow: list[float], fast: list[float]) -> dict[str, float]:
    """Return the ratio of the medians and the quartiles of the rounds' own ratios, of the rounds that both took."""
    pairs = list(zip(slow, fast, strict=False))
    slow, fast = [one for one, _ in pairs], [other for _, other in pairs]
    each = [one / other for one, other in pairs]
    _, low, high = spread(each)
    return {"ratio": median(slow) / median(fast), "low": low, "high": high, "rounds": len(each)}


def circumstances(found: dict[str, Any]) -> str:
    """Return on what it all ran."""
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    return f"{found['machine']}, {found['threads']} threads, {found['date']}; {versions}"


def equality(found: dict[str, Any]) -> str:
    """Return how far both sides differ."""
    lines = [f"differences of {OURS} and {THEIRS}, both {EXACT}, at most:"]
    lines += [f"  {what:<46}{value:>9.1e}" for what, value in found["differences"].items()]
    spread = ", ".join(f"{value:.2f} {what}" for what, value in found["spread_of_log_odds"].items())
    return "\n".join([*lines, f"  (log-odds of a match lie apart by {spread})"])


def drifts(found: dict[str, Any]) -> str:
    """Return how far other precisions differ."""
    lines = [f"drift of P(match) against {THEIRS} {EXACT}:"]
    lines += [_drift(name, drift) for name, drift in found["drift"].items()]
    return "\n".join(lines) if found["drift"] else ""


def products(found: dict[str, Any]) -> str:
    """Return what the machine can do."""
    each = [(dtype, *rate) for dtype, rates in found["matrix_rates"].items() for rate in rates.items()]
    lines = [f"  {dtype:<10}{what:<34}{rate / 1e9:>8.0f}" for dtype, what, rate in each]
    return "\n".join(["matrix products, GFLOP/s:", *lines])


def timed(name: str, case: dict[str, Any], found: dict[str, Any]) -> str:
    """Return the seconds and ratios of a case."""
    lines = [f"{name:<44}{'median':>9}{'min':>9}{'max':>9}{'images/s':>10}"]
    for side, rounds in case["seconds"].items():
        middle = median(rounds)
        line = f"  {side:<42}{middle:>7.3f} s{min(rounds):>7.3f} s{max(rounds):>7.3f} s{case['images'] / middle:>10.2f}"
        share = _share(case["operations"], middle, side, found["matrix_rates"])
        lines.append(line + (f"  {share}" if side.startswith(OURS) else ""))
    return "\n".join(lines + [f"  {what:<42}{_range(ratios)}" for what, ratios in case["ratios"].items()])


def profiled(found: dict[str, Any]) -> str:
    """Return where the time goes."""
    lines = [f"{'a call by stage, s':<34}" + "".join(f"{stage:>26}" for stage in STAGES)]
    lines += [_stages(name, profile, found["matrix_rates"]) for name, profile in found["profile"].items()]
    return "\n".join(lines) if found["profile"] else ""


def _drift(name: str, drift: dict[str, float]) -> str:
    changed = f"{drift['changed_decisions']:.1%} of {drift['pairs']} decisions change"
    return f"  {name:<34}largest {drift['largest']:.1e}, mean {drift['mean']:.1e}, {changed}"


def _range(found: dict[str, Any]) -> str:
    spread = f"({found['low']:.2f} to {found['high']:.2f})" if found["rounds"] > 1 else "(one round)"
    return f"{found['ratio']:>7.2f} {spread}"


def _stages(name: str, profile: dict[str, dict[str, float]], rates: dict[str, dict[str, float]]) -> str:
    cells = []
    for stage in STAGES:
        seconds, operations = profile["seconds"].get(stage), profile["operations"].get(stage)
        cell = f"{seconds:.3f}" if seconds is not None else ""
        cells.append(cell + (f" {_share(operations, seconds, name, rates)}" if operations and seconds else ""))
    return f"  {name:<32}" + "".join(f"{cell:>26}" for cell in cells)


def _share(operations: float, seconds: float, side: str, rates: dict[str, dict[str, float]]) -> str:
    """Return the operations a second, and their share of the fastest matrix product in the side's precision."""
    peak = max(rates[HALF if HALF in side else EXACT].values())
    return f"{operations / seconds / 1e9:.0f} GFLOP/s = {operations / seconds / peak:.0%}"
