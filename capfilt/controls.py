"""Control pairs: images with texts of other samples, known not to match.

The share of them that passes a threshold is the filter's false-accept rate, measured on the run's own images and
texts. A control text is a row of the ledger beside the candidates of its image, and no policy ever selects it.
"""

import hashlib
from collections.abc import Iterator, Sequence

from capfilt.config import BootstrapConfig
from capfilt.records import CONTROL, Candidate, SampleRecord
from capfilt.texts import clean

OWN, CAPTION = 0, 1
"""The caption_index of a control text that came with another image, and of one that was written for it."""


def add_controls(
    groups: Sequence[list[Candidate]], records: Sequence[SampleRecord], texts: Sequence[str], config: BootstrapConfig
) -> list[list[Candidate]]:
    """Return the candidates of a batch, with control texts after those of a seeded share of its samples.

    The control texts come from the same batch, since batches do not depend on how a shard is cut or what ran before. A
    text that reads like one of the image's own, or comes from an identical image, is no mismatch and is left out.

    Args:
        groups: the candidates of each sample.
        records: what is known of each sample.
        texts: the text that came with each sample, even if its image cannot be used.
        config: the job.
    """
    return [group + list(_controls(place, groups, records, texts, config)) for place, group in enumerate(groups)]


def _controls(
    place: int,
    groups: Sequence[list[Candidate]],
    records: Sequence[SampleRecord],
    texts: Sequence[str],
    config: BootstrapConfig,
) -> Iterator[Candidate]:
    record = records[place]
    drawn, turn = _chances(record, config)
    if record.status != "ok" or drawn >= config.controls.share:
        return
    own = {_read(candidate.text) for candidate in groups[place]} | {""}
    others = [*range(place + 1, len(groups)), *range(place)]
    start = turn % max(len(others), 1)
    others = [n for n in others[start:] + others[:start] if records[n].image_sha256 != record.image_sha256]
    came = next((texts[n] for n in others if _read(texts[n]) not in own), None)
    if came is not None:
        yield Candidate(record.position, record.key, CONTROL, OWN, came)
    captions = (candidate for n in others for candidate in groups[n] if candidate.source == "synthetic")
    written = next((caption for caption in captions if _read(caption.text) not in own), None)
    if written is not None:  # its tokens are counted where it was written
        mismatch = {"source": CONTROL, "caption_index": CAPTION, "tokens": None, "logprob": None}
        yield written._replace(position=record.position, key=record.key, **mismatch)


def _chances(record: SampleRecord, config: BootstrapConfig) -> tuple[float, int]:
    """Return a number in [0, 1) that decides whether a sample is drawn, and an integer that decides its partner."""
    text = f"control {config.seed} {config.round} {record.image_sha256} {record.position}"
    digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) * 2.0**-53, int.from_bytes(digest[8:], "big")


def _read(text: str) -> str:
    return clean(text).lower()
