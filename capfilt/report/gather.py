"""Gather the content of a report from a run's ledger."""

from dataclasses import replace

from capfilt.display import counted
from capfilt.policy import RULES
from capfilt.query.cards import Place, load_cards
from capfilt.query.opened import OpenRun
from capfilt.query.picks import NEAR, Pick, pick
from capfilt.report.content import Report, Section
from capfilt.report.slices import slice_run
from capfilt.report.whatif import what_if
from capfilt.stats.overview import summarise


def gather(opened: OpenRun, samples: int, seed: int) -> Report:
    """Return the content of a report.

    Args:
        opened: the run, opened with a policy.
        samples: most samples of a gallery.
        seed: of the galleries that are drawn.
    """
    figures = summarise(opened)
    own = next((source for source in figures.sources if source != "synthetic"), "web")
    return Report(
        run=opened.run.root,
        policy=opened.policy,
        figures=figures,
        whatif=what_if(opened, own),
        sections=_sections(opened, list(figures.sources), samples, seed),
        failures=_failures(opened, [status for status in figures.statuses if status != "ok"], samples, seed),
        slices=slice_run(opened),
        notes=_notes(opened, samples, seed),
    )


def _sections(opened: OpenRun, sources: list[str], samples: int, seed: int) -> list[Section]:
    each = max(1, samples // max(1, len(sources)))

    def by_source(asked: Pick) -> list[Place]:
        """Return equally many of each source, so that one source does not fill the gallery."""
        found = [pick(opened, replace(asked, source=source), each, seed) for source in sources]
        return list(dict.fromkeys(place for places in found for place in places))

    chosen = {
        "rejected": by_source(Pick(kept=False, reasons=RULES, order="best")),
        "kept": by_source(Pick(kept=True, order="worst")),
        "near": by_source(Pick(near=True)),
        "disagreement": pick(opened, Pick(order="disagreement"), samples),
        "random": pick(opened, Pick(), samples, seed),
    }
    wanted = dict.fromkeys(place for places in chosen.values() for place in places)
    cards = {card.place: card for card in load_cards(opened, list(wanted))}  # one pass over all texts, not five
    return [Section(name, *_SECTIONS[name], [cards[place] for place in places]) for name, places in chosen.items()]


_SECTIONS = {
    "rejected": (
        "Best rejected",
        "The rejected texts with the highest P(match), equally many of each source: what the policy loses. Duplicates "
        "and what the mix did not take are left out.",
    ),
    "kept": (
        "Worst kept",
        "The kept texts with the lowest P(match), equally many of each source: what slips through.",
    ),
    "near": (
        "Near the threshold",
        f"A seeded draw of texts whose P(match) is within {NEAR} of their threshold: what a small move changes.",
    ),
    "disagreement": (
        "Largest disagreement",
        "The images whose web text and best caption differ most in P(match): one of the two, or the filter, is wrong.",
    ),
    "random": ("Random", "A seeded draw from all samples that were attempted: what the run looks like as a whole."),
}


def _failures(opened: OpenRun, reasons: list[str], samples: int, seed: int) -> Section:
    each = max(1, samples // max(1, len(reasons)))
    places = [place for reason in reasons for place in pick(opened, Pick(failed=True, reasons=(reason,)), each, seed)]
    how = "Samples that were not scored: a seeded draw for each reason. Every sample that was attempted has a row."
    return Section("failures", "Failures", how, load_cards(opened, places))


def _notes(opened: OpenRun, samples: int, seed: int) -> list[str]:
    figures = opened.figures
    return [
        f"Figures, slices and sliders count all texts ({figures['candidates']}) and samples ({figures['samples']}) "
        f"that were looked at: {opened.extent}.",
        f"A gallery shows at most {counted(samples, 'sample')}. Draws go by the md5 of seed {seed}, shard and "
        "position, so the same seed shows the same samples.",
        "Control, direction and other characters that cannot be seen are shown by their number, as <U+202E>.",
        f"Models fingerprint {opened.run.models}.",
    ]
