"""The slow copies and the queues, against the original's rules written out."""

import pytest
import torch
import torch.nn.functional as F
from models import small_checkpoint
from torch import Tensor

from capfilt.config.momentum import MomentumSettings
from capfilt.errors import CheckpointError
from capfilt.med.model import MED
from capfilt.med.momentum import NOBODY, Features, Momentum, resume_published
from capfilt.med.vision import normalise


@pytest.fixture
def model(tmp_path) -> MED:
    torch.set_num_threads(1)
    return small_checkpoint(tmp_path).model


def momentum(model: MED, seed: int = 0, **changes: object) -> Momentum:
    return Momentum(model, MomentumSettings(queue=12).model_copy(update=changes), seed)


def features(count: int, first: int = 0, width: int = 16) -> Features:
    rows = torch.arange(first, first + count)[:, None] + torch.zeros(width)
    return Features(rows + 0.25, rows + 0.5)


def moved(model: MED) -> None:
    """Change all weights, as an optimiser step does."""
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.data += torch.randn(parameter.shape, generator=generator) * 0.1


class TestCopies:
    def test_they_hold_what_itc_reads_and_no_more(self, model):
        names = {name for name, _ in momentum(model).copy.named_parameters()}
        wanted = {
            name
            for name, _ in model.named_parameters()
            if not any(part in name for part in ("cross_attn", "decoder_attn", "head", "temperature"))
        }
        assert names == wanted
        assert {name.split(".")[0] for name in names} == {"vision", "text", "vision_proj", "text_proj"}

    def test_they_start_equal_and_share_no_memory(self, model):
        copy = momentum(model).copy
        for name, parameter in copy.named_parameters():
            assert torch.equal(parameter, model.get_parameter(name))
            assert parameter.data_ptr() != model.get_parameter(name).data_ptr()

    def test_they_follow_as_the_plain_loop_over_parameters_does(self, model):
        slow = momentum(model, decay=0.9)
        plain = {name: parameter.clone() for name, parameter in slow.copy.named_parameters()}
        for step in range(3):
            moved(model)
            slow.follow(step / 3)
            for name in plain:
                plain[name] = 0.9 * plain[name] + (1 - 0.9) * model.get_parameter(name).data
        for name, parameter in slow.copy.named_parameters():
            torch.testing.assert_close(parameter.data, plain[name], rtol=1e-6, atol=1e-7)

    def test_the_parts_of_one_step_move_them_once(self, model):
        slow, twice = momentum(model), momentum(model)
        moved(model)
        slow.follow(0.5)
        for _ in range(2):
            twice.follow(0.5)
        assert all(torch.equal(a, b) for a, b in zip(slow.parameters(), twice.parameters(), strict=True))

    def test_they_get_no_gradient_and_keep_their_dropout(self, model):
        slow = momentum(model).train()
        assert not any(parameter.requires_grad for parameter in slow.parameters())
        assert all(module.training for module in slow.modules())

    def test_before_they_move_their_features_are_the_models(self, model):
        pixels = normalise(torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8))
        ids, keep = torch.tensor([[2, 5, 3], [2, 6, 3]]), torch.ones(2, 3).bool()
        found = momentum(model).eval().features(pixels, ids, keep)
        with torch.no_grad():
            torch.testing.assert_close(found.image, model.image_features(model.encode_image(pixels)))
            torch.testing.assert_close(found.text, model.text_features(ids, keep))
        assert not found.image.requires_grad

    def test_they_still_follow_after_a_state_was_loaded(self, model):
        slow, before = momentum(model), model.vision_proj.weight.clone()
        slow.load_state_dict({name: tensor.clone() for name, tensor in slow.state_dict().items()})
        moved(model)
        slow.follow(0.0)
        expected = 0.995 * before + 0.005 * model.vision_proj.weight
        torch.testing.assert_close(slow.copy.vision_proj.weight, expected)


class TestAlpha:
    def test_it_rises_in_a_line_and_stays(self, model):
        slow = momentum(model, alpha=0.4, alpha_ramp=0.1)
        assert [slow.alpha(done) for done in (0.0, 0.05, 0.1, 0.9)] == pytest.approx([0.0, 0.2, 0.4, 0.4])

    def test_without_a_ramp_it_is_there_at_once(self, model):
        assert momentum(model, alpha=0.4, alpha_ramp=0.0).alpha(0.0) == 0.4


class TestQueue:
    def test_it_starts_with_unit_vectors_of_nobody_that_follow_from_the_seed(self, model):
        first, again, other = momentum(model, 1), momentum(model, 1), momentum(model, 2)
        for name in ("image_queue", "text_queue"):
            torch.testing.assert_close(getattr(first, name).norm(dim=0), torch.ones(12))
            assert torch.equal(getattr(first, name), getattr(again, name))
            assert not torch.equal(getattr(first, name), getattr(other, name))
        assert not torch.equal(first.image_queue, first.text_queue)
        assert first.images.tolist() == [NOBODY] * 12
        assert NOBODY < 0  # images count from 0

    def test_the_oldest_entries_are_replaced_round_and_round(self, model):
        slow = momentum(model)
        for step in range(4):
            slow.enqueue(features(4, 10 * step), torch.arange(4) + 10 * step)
        expected = [30, 31, 32, 33, 10, 11, 12, 13, 20, 21, 22, 23]
        assert slow.images.tolist() == expected
        assert slow.image_queue[3].tolist() == [number + 0.25 for number in expected]
        assert slow.text_queue[5].tolist() == [number + 0.5 for number in expected]
        assert slow.pointer.item() == 4

    def test_a_pointer_from_steps_of_another_size_goes_round_as_well(self, model):
        slow = momentum(model)
        slow.pointer.fill_(10)
        slow.enqueue(features(4), torch.arange(4))
        assert slow.images.tolist() == [2, 3, *[NOBODY] * 8, 0, 1]
        assert slow.pointer.item() == 2

    def test_its_images_are_numbered_behind_those_of_the_batch(self, model):
        slow = momentum(model)
        slow.enqueue(features(4), torch.arange(4))
        assert slow.with_queue(torch.tensor([8, 9])).tolist() == [8, 9, 0, 1, 2, 3, *[NOBODY] * 8]

    def test_a_state_brings_it_back(self, model):
        slow, again = momentum(model, 1), momentum(model, 2)
        slow.enqueue(features(4), torch.arange(4))
        again.load_state_dict(slow.state_dict())
        assert torch.equal(again.image_queue, slow.image_queue)
        assert (again.pointer.item(), again.images.tolist()) == (4, slow.images.tolist())


class TestContrast:
    def test_it_compares_with_the_batch_then_with_the_queue(self, model):
        slow = momentum(model, alpha=0.3, alpha_ramp=0.0)
        generator = torch.Generator().manual_seed(0)
        online, copies = (
            Features(*(F.normalize(torch.randn(2, 16, generator=generator), dim=1) for _ in range(2))) for _ in range(2)
        )
        temperature, positive = torch.tensor(0.2), torch.eye(2, 14).bool()

        def direction(one: Tensor, slow_one: Tensor, others: list[Tensor]) -> float:
            total = 0.0
            for row in range(2):
                logits = torch.stack([one[row] @ other / 0.2 for other in others])
                soft = torch.stack([slow_one[row] @ other / 0.2 for other in others]).softmax(0)
                target = 0.3 * soft
                target[row] += 0.7
                total -= (target * logits.log_softmax(0)).sum().item()
            return total / 2

        found = slow.contrast(online, copies, temperature, positive, done=0.0)

        to_text = direction(online.image, copies.image, [*copies.text, *slow.text_queue.T])
        to_image = direction(online.text, copies.text, [*copies.image, *slow.image_queue.T])
        assert found.item() == pytest.approx((to_text + to_image) / 2, rel=1e-5)

    def test_enqueuing_before_the_backward_pass_leaves_its_gradient_alone(self, model):
        grads = []
        for late in (False, True):
            slow, leaf = momentum(model), torch.full((4, 16), 0.25, requires_grad=True)
            loss = slow.contrast(
                Features(leaf, leaf.detach()), features(4), torch.tensor(1.0), torch.eye(4, 16).bool(), 0.0
            )
            if not late:
                slow.enqueue(features(4, 50), torch.arange(4))
            loss.backward()
            grads.append(leaf.grad)
        assert torch.equal(*grads)


class TestResume:
    def published(self, slow: Momentum, pointer: str = "queue_ptr", **more: Tensor) -> dict[str, Tensor]:
        """Return the tensors of an original file that matter here; those of the text stack by one layer's names."""
        state = {"image_queue": slow.image_queue + 1, "text_queue": slow.text_queue + 2, pointer: torch.tensor([8])}
        rows = [("visual_encoder", "vision.vit."), ("vision_proj", "vision_proj."), ("text_proj", "text_proj.")]
        for theirs, ours in rows:
            for name, tensor in slow.copy.state_dict().items():
                if name.startswith(ours):
                    state[f"{theirs}_m.{name.removeprefix(ours)}"] = tensor + 3
        names = {
            "words.": "word_embeddings.",
            "positions.": "position_embeddings.",
            "norm.": "LayerNorm.",
        }
        for name, tensor in slow.copy.text.state_dict().items():
            if name.startswith("embeddings."):
                name = name.removeprefix("embeddings.")
                for ours, theirs in names.items():
                    name = name.replace(ours, theirs)
                state[f"text_encoder_m.embeddings.{name}"] = tensor + 3
            else:
                name = name.removeprefix("blocks.").replace("mlp.up", "intermediate.dense")
                name = name.replace("mlp.down", "output.dense").replace("mlp.norm", "output.LayerNorm")
                name = name.replace("encoder_attn.out", "attention.output.dense")
                name = name.replace("encoder_attn.norm", "attention.output.LayerNorm")
                name = name.replace("encoder_attn", "attention.self")
                state[f"text_encoder_m.encoder.layer.{name}"] = tensor + 3
        return {**state, "temp": torch.tensor(0.07), **more}

    def test_copies_queues_and_pointer_are_those_of_the_file(self, model):
        slow = momentum(model)
        before = {name: tensor.clone() for name, tensor in slow.state_dict().items()}
        others = {  # the model itself, and what ITC does not read
            "vision_proj.weight": torch.zeros(16, 64),
            "text_encoder_m.encoder.layer.0.crossattention.self.query.bias": torch.zeros(64),
        }
        resume_published(slow, self.published(slow, **others), "file")
        for name, tensor in slow.copy.state_dict().items():
            assert torch.equal(tensor, before[f"copy.{name}"] + 3), name
        assert torch.equal(slow.text_queue, before["text_queue"] + 2)
        assert (slow.pointer.item(), slow.images.tolist()) == (8, [NOBODY] * 12)

    def test_a_retrieval_file_brings_its_image_numbers(self, model):
        slow = momentum(model)
        resume_published(slow, self.published(slow, "ptr_queue", idx_queue=torch.arange(12)[None]), "file")
        assert slow.images.tolist() == list(range(12))

    def test_a_queue_of_another_size_is_refused_with_the_setting_to_change(self, model):
        slow = momentum(model)
        state = self.published(slow)
        with pytest.raises(
            CheckpointError, match=r"file: its queues have 12 entries, .* is 24; set momentum.queue: 12"
        ):
            resume_published(momentum(model, queue=24), state, "file")

    @pytest.mark.parametrize(
        ("left_out", "count", "first"), [("text_proj_m", 2, "copy.text_proj.bias"), ("image_queue", 1, "image_queue")]
    )
    def test_a_file_without_copies_or_queues_is_refused(self, model, left_out, count, first):
        slow = momentum(model)
        state = {name: tensor for name, tensor in self.published(slow).items() if not name.startswith(left_out)}
        message = rf"{count} of \d+ momentum tensors are missing or of another size \(first: {first}\)"
        with pytest.raises(CheckpointError, match=message):
            resume_published(slow, state, "file")

    @pytest.mark.parametrize(
        ("name", "size", "first"),
        [("text_proj_m.weight", (8, 32), "copy.text_proj.weight"), ("text_queue", (8, 12), "text_queue")],
    )
    def test_a_file_with_a_copy_or_features_of_another_size_is_refused(self, model, name, size, first):
        slow = momentum(model)
        state = self.published(slow) | {name: torch.zeros(size)}
        with pytest.raises(CheckpointError, match=rf"1 of \d+ .* of another size \(first: {first}\)"):
            resume_published(slow, state, "file")
