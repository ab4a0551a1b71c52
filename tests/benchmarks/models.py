"""The two networks that overhead is measured on."""

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Gpt", "conv_loss", "conv_net", "gpt_loss"]

VOCABULARY, CONTEXT, WIDTH, BLOCKS, HEADS = 256, 128, 384, 6, 6


class Block(nn.Module):
    """Pre-norm attention and a four times wider MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        q, k, v = (
            part.view(batch, length, HEADS, -1).transpose(1, 2)
            for part in self.qkv(self.norm1(x)).chunk(3, dim=-1)
        )
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(x.shape))
        wide: Tensor = self.down(functional.gelu(self.up(self.norm2(x))))
        return x + wide


class Gpt(nn.Module):
    """10.9M parameters in 78 tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, WIDTH)
        self.positions = nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(BLOCKS)))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, VOCABULARY)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.positions.weight[: tokens.shape[1]]
        scores: Tensor = self.head(self.norm(self.blocks(x)))
        return scores


def gpt_loss(model: nn.Module, batch: int = 8, context: int = CONTEXT) -> Tensor:
    """Next-token loss of a batch of random tokens."""
    tokens = torch.randint(VOCABULARY, (batch, context + 1))
    scores = model(tokens[:, :-1]).flatten(0, 1)
    return functional.cross_entropy(scores, tokens[:, 1:].flatten())


def conv_net() -> nn.Module:
    """Twelve 3x3 convolutions with BatchNorm and ReLU, 32 to 128 channels wide."""
    layers: list[nn.Module] = []
    channels = 3
    for index, width in enumerate([32] * 4 + [64] * 4 + [128] * 4):
        stride = 2 if index in (4, 8) else 1
        conv = nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)
        layers += [conv, nn.BatchNorm2d(width), nn.ReLU()]
        channels = width
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10)
    )


def conv_loss(model: nn.Module, batch: int = 8, side: int = 32) -> Tensor:
    """Classification loss of a batch of random square images."""
    images, labels = torch.randn(batch, 3, side, side), torch.randint(10, (batch,))
    return functional.cross_entropy(model(images), labels)
