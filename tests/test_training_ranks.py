"""What ranks tell each other, on three real processes, and on one alone."""

from pathlib import Path

import pytest
import torch
from processes import start_ranks
from torch import Tensor

from capfilt.training.ranks import gather, gather_texts, gather_with_gradient, rank, world_size

WORLD = 3


def own_rows(number: int) -> Tensor:
    return torch.arange(4.0).view(2, 2) + 10 * number


def own_texts(number: int) -> tuple[Tensor, Tensor]:
    """Return two texts; those of each rank are longer than those of the rank before."""
    ids = torch.full((2, 3 + number), 7 + number)
    return ids, torch.ones_like(ids).bool()


def meet(number: int, results: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{results}/meeting", rank=number, world_size=WORLD)
    leaf = own_rows(number).requires_grad_()
    gathered = gather_with_gradient(leaf)
    factors = torch.arange(12.0).view(6, 2) * (number + 1)  # what this rank's loss asks of each row
    (gathered * factors).sum().backward()
    found = {
        "place": (rank(), world_size()),
        "rows": gather(own_rows(number)),
        "numbers": gather(torch.tensor([number])),
        "with_gradient": gathered.detach(),
        "gradient": leaf.grad,
        "texts": gather_texts(*own_texts(number)),
        "needs_gradient": gather(leaf).requires_grad,
    }
    torch.save(found, results / f"{number}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    results = tmp_path_factory.mktemp("ranks")
    start_ranks(meet, (results,), WORLD)
    return [torch.load(results / f"{number}.pt") for number in range(WORLD)]


def test_each_knows_its_number_and_how_many_there_are(ranks):
    assert [found["place"] for found in ranks] == [(0, 3), (1, 3), (2, 3)]


def test_all_get_the_rows_of_all_in_the_order_of_ranks(ranks):
    expected = torch.cat([own_rows(number) for number in range(WORLD)])
    for found in ranks:
        assert torch.equal(found["rows"], expected)
        assert torch.equal(found["with_gradient"], expected)
        assert found["numbers"].tolist() == [0, 1, 2]
        assert not found["needs_gradient"]


def test_a_row_gets_what_the_losses_of_all_ranks_ask_of_it(ranks):
    for number, found in enumerate(ranks):
        asked = torch.arange(12.0).view(6, 2)[2 * number : 2 * number + 2] * (1 + 2 + 3)
        assert torch.equal(found["gradient"], asked)


def test_texts_are_padded_to_the_longest_of_any_rank(ranks):
    for number, found in enumerate(ranks):
        ids, keep, all_ids, all_keep = found["texts"]
        assert ids.tolist() == [[7 + number] * (3 + number) + [0] * (2 - number)] * 2
        assert keep.sum(1).tolist() == [3 + number] * 2
        assert torch.equal(all_ids[2 * number : 2 * number + 2], ids)
        assert torch.equal(all_keep[2 * number : 2 * number + 2], keep)
        assert all_ids.shape == all_keep.shape == (6, 5)


def test_alone_all_of_it_is_the_identity():
    rows = own_rows(0).requires_grad_()
    assert (rank(), world_size()) == (0, 1)
    assert gather_with_gradient(rows) is rows
    assert torch.equal(gather(rows), rows)
    assert not gather(rows).requires_grad
    ids, keep = own_texts(1)
    assert all(torch.equal(a, b) for a, b in zip(gather_texts(ids, keep), (ids, keep, ids, keep), strict=True))
