"""The columns of an open run, and their meaning."""

_PLACE = {
    "shard": "id of the input shard",
    "position": "place of the sample in it, from 0",
    "key": "the sample's name in the shard",
}

_IMAGE = {
    "width": "of the image, pixels; null when it was not recognised",
    "height": "of the image, pixels; likewise",
    "format": "JPEG, PNG, ...; empty when it was not recognised",
    "domain": "host of the url without www., lower case; null when there is none",
    "status": "ok, or the reason why the sample was not scored",
}

SAMPLES = {
    **_PLACE,
    **_IMAGE,
    "image_sha256": "of the encoded image",
    "url": "where the image came from; empty when unknown",
    "text_status": "what was the matter with the sample's own text: ok, missing, empty, not_utf8 or cut",
    "error": "what was found, for people; empty when nothing was wrong",
    "texts": "number of candidates",
    "own_itm": "best P(match) of the texts that came with the image; null when there is none",
    "synthetic_itm": "best P(match) of its captions; likewise",
    "texts_kept": "number of candidates that the policy keeps",
}
"""A row for each sample that was attempted, as in the ledger, without the metadata, which would outweigh the rest."""

CANDIDATES = {
    **_PLACE,
    "source": "web, synthetic or human",
    "caption_index": "0 for the sample's own text, 0 to n - 1 for the captions of an image",
    "text": "exactly as it came",
    "captioner": "hash of the checkpoint that wrote it; null for web and human texts",
    "round": "turn of the bootstrapping loop",
    "seed": "of the sampling noise; null for web and human texts",
    "tokens": "generated; null for web and human texts",
    "logprob": "sum over the generated tokens, nats; null for web and human texts",
    "itm": "P(match) of the ITM head, 0 to 1; null when it was not scored",
    "itc": "cosine of the contrastive features, -1 to 1; likewise",
    "kept": "whether the policy keeps it",
    "reason": "the first rule of the policy that it does not meet; null when kept",
    "same": "a number: equal for candidates of a sample whose texts count as duplicates of each other",
    "words": "words of the cleaned text",
    "characters": "characters of the cleaned text",
    "script": "the script of most of its letters: Latin, Han, Cyrillic, ...; None when it has no letter",
    "language": "ISO 639 code as a detector guesses it; there only when asked for, with the extra capfilt[languages]",
    **_IMAGE,
}
"""A row for each candidate, kept or not."""

OUTCOMES = CANDIDATES
"""The candidates, and a row for each sample that was not scored, in which all columns of a text are null."""

CONTROLS = {
    **_PLACE,
    "caption_index": "0 for a text that came with another image, 1 for a caption that was written for another",
    "text": "exactly as it came",
    "captioner": "hash of the checkpoint that wrote it; null for one that came with another image",
    "itm": "P(match) of the ITM head, 0 to 1",
    "itc": "cosine of the contrastive features, -1 to 1",
}
"""A row for each control text: one of another sample, scored with this sample's image. No policy selects them."""

COLUMNS = {"samples": SAMPLES, "candidates": CANDIDATES, "outcomes": OUTCOMES, "controls": CONTROLS}
"""Relation -> column -> meaning."""
