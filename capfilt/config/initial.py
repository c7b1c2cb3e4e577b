"""Settings of the weights that pre-training starts from."""

from pydantic import Field

from capfilt.config.schema import Config


class InitialWeights(Config):
    """Weights to start pre-training from; what is not given is random."""

    vision: str | None = Field(
        None,
        description="ViT weights for the vision tower: path or URL of a .safetensors, .pth or .npz file or of a folder "
        "with one, or a timm model's name; the original: DeiT-B/16 (timm: deit_base_patch16_224); null: random",
    )
    text: str | None = Field(
        None,
        description="path or URL of a BERT checkpoint folder for the text stack; the original: bert-base-uncased; "
        "null: random",
    )
