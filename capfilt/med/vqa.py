"""Visual question answering: the image is read by the question, and the answer is written from the question.

Two text stacks with weights of their own: an encoder of questions that cross-attends to the image, and
a decoder of answers that cross-attends to the encoder's states.

Shapes: B questions, each with its image, L question tokens, A answers (equally many for each question,
next to each other), T answer tokens, M image tokens, D text width, V vocabulary.
Source: BLIP, arXiv 2201.12086, section 5.3 and figure 5.
"""

from torch import Tensor, nn

from capfilt.config.sizes import VQASizes
from capfilt.med.attention import KeysValues
from capfilt.med.text import TextStack
from capfilt.med.vision import VisionTower


class VQA(nn.Module):
    """A model that answers questions on images."""

    def __init__(self, config: VQASizes) -> None:
        super().__init__()
        self.config = config
        self.vision = VisionTower(config.vision)
        self.questions = TextStack(config.text, config.vision.width, encoder=True, decoder=False)
        self.answers = TextStack(config.text, config.text.width, encoder=False, decoder=True)

    @property
    def text(self) -> TextStack:
        """The stack that writes, under the name that TextDecoder asks for."""
        return self.answers

    def ask(self, images: Tensor, ids: Tensor, keep: Tensor) -> list[KeysValues]:
        """Return the keys and values of questions, for answers to attend to.

        Args:
            images: normalised, float (B, 3, S, S).
            ids: questions that start with [ENC], (B, L).
            keep: bool (B, L), True for real tokens.
        """
        image = self.questions.project_image(self.vision(images))
        return self.answers.project_image(self.questions.encode(ids, keep, image))

    def decode(self, ids: Tensor, question: list[KeysValues], seen: Tensor) -> Tensor:
        """Map answers that start with [DEC], ids (A, T), to the logits (A, T, V) of each next token.

        seen (B, L), bool, is True for the question tokens that an answer may look at.
        """
        return self.answers.logits(self.answers.decode(ids, question, seen=seen))
