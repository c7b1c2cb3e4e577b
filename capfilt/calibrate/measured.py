"""What each threshold does to the texts of one source, and which one lets in a target share of mismatches."""

from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from capfilt.calibrate.curves import STEPS, Curve, Rate, enough
from capfilt.calibrate.labels import Labelled
from capfilt.display import counted

SHOWN_STEPS = tuple(range(0, STEPS + 1, STEPS // 20))
"""Steps of the thresholds that are shown, besides those in force and proposed."""


@dataclass(frozen=True, slots=True)
class Point:
    """What a threshold does to the texts of one source."""

    threshold: float
    kept: Rate  # of all its texts
    false_accepts: Rate  # of the control texts
    wrong_at_most: float | None  # estimated share of mismatches among the kept texts; None without controls
    false_rejects: Rate | None = None  # of texts that people wrote, if that is the source
    precision: Rate | None = None  # by labels
    recall: Rate | None = None


@dataclass(frozen=True, slots=True)
class SourceCalibration:
    """The texts of one source."""

    source: str
    texts: int
    controls: int
    noise_at_most: float | None  # estimated share of mismatches among its texts; None without controls
    in_force: Point
    proposed: Point | None  # the least threshold that lets in the target share; None when none does
    least: float | None  # the target rate may be met from here to `most`, with 95 % confidence; None: no end
    most: float | None
    points: list[Point]
    warnings: list[str]


@dataclass(frozen=True, slots=True)
class Scored:
    """The scores of one source, from which a calibration follows."""

    source: str
    texts: Curve
    controls: Curve  # of control texts of the same kind
    judged: Labelled | None

    def calibrate(self, in_force: float, error: float) -> SourceCalibration:
        """Return what the thresholds do, and the least one that lets in a share of mismatches of at most `error`.

        in_force is the threshold that the curves were counted with.
        """
        step = self._least(lambda rate: rate.share, error)
        least, most = self._least(lambda rate: rate.low, error), self._least(lambda rate: rate.high, error)
        return SourceCalibration(
            source=self.source,
            texts=self.texts.total,
            controls=self.controls.total,
            noise_at_most=self._noise(),
            in_force=self._point(in_force, lambda curve: curve.in_force),
            proposed=None if step is None else self.point(step),
            least=None if least is None else least / STEPS,
            most=None if most is None else most / STEPS,
            points=[self.point(each) for each in SHOWN_STEPS],
            warnings=list(self._warnings(step, error)),
        )

    def point(self, step: int) -> Point:
        """Return what the threshold step / STEPS does."""
        return self._point(step / STEPS, lambda curve: curve.at(step))

    def _point(self, threshold: float, at: Callable[[Curve], Rate]) -> Point:
        """Return what a threshold does; `at` gives the share of a curve that reaches it."""
        kept, accepted, noise = at(self.texts), at(self.controls), self._noise()
        wrong = min(1.0, (noise or 0.0) * accepted.share / kept.share) if kept.part else 0.0
        judged = self.judged
        passed = Rate(0, 0) if judged is None else at(judged.true)
        chosen = passed.part + (0 if judged is None else at(judged.false).part)
        return Point(
            threshold=threshold,
            kept=kept,
            false_accepts=accepted,
            wrong_at_most=None if noise is None else wrong,
            false_rejects=Rate(kept.whole - kept.part, kept.whole) if self.source == "human" else None,
            precision=None if judged is None else Rate(passed.part, chosen),
            recall=None if judged is None else passed,
        )

    def _least(self, value: Callable[[Rate], float], error: float) -> int | None:
        """Return the least step at which a value of the false-accept rate, which falls, is at most `error`."""
        if not self.controls.total:
            return None
        step = bisect_left(range(STEPS + 1), True, key=lambda step: value(self.controls.at(step)) <= error)
        return step if step <= STEPS else None

    def _noise(self) -> float | None:
        """Return an upper bound of the share of mismatches among the texts, if these score as the controls do.

        Half of all mismatches score below the median of the controls. So the mismatches are at most twice as many as
        the texts that score there.

        Source:
            Storey, A direct approach to false discovery rates, 2002, with the controls for the null distribution.
        """
        median = self._least(lambda rate: rate.share, 0.5)
        if median is None:
            return None
        return min(1.0, self.texts.below(median).share / self.controls.below(median).share)

    def _warnings(self, step: int | None, error: float) -> Iterator[str]:
        found, wanted = self.controls.total, enough(error)
        if not found:
            yield f"{self.source}: no control pairs, so no threshold is proposed"
        elif step is None:
            share = self.controls.at(STEPS).share
            yield f"{self.source}: no threshold lets in so few: {share:.2%} of the control pairs score 1"
        if 0 < found < wanted:
            are = f"{counted(found, 'control pair')} {'is' if found == 1 else 'are'}"
            yield (
                f"{self.source}: {are} too few to show a rate of {error:g}, which takes {wanted:,}; "
                f"a run with a larger controls.share, or on more samples, has more"
            )
