"""Text-relevant patch selection (Ye et al., arXiv 2403.07883): scores, kept tokens, the fused token."""

import math
from dataclasses import dataclass

import torch

GUIDANCE = ("text", "image-cls", "random")
"""`random`: for training without guidance; a package draws other numbers."""
FUSE = ("normalized", "weighted", "none")
ORDER = ("original", "score")


@dataclass(frozen=True)
class Selection:
    """Which blocks select (1-based), how much each keeps, and the options that the paper leaves open."""

    blocks: tuple[int, ...] = ()
    rates: tuple[float, ...] = ()
    guidance: str = "text"
    fuse: str = "normalized"
    order: str = "original"

    def __post_init__(self):
        if len(self.rates) == 1 and len(self.blocks) > 1:
            object.__setattr__(self, "rates", self.rates * len(self.blocks))
        if len(self.rates) != len(self.blocks):
            raise ValueError(f"{len(self.rates)} keep rates for {len(self.blocks)} blocks")
        if any(not 0 < rate <= 1 for rate in self.rates):
            raise ValueError(f"keep rates {self.rates}: expected numbers in (0, 1]")
        for value, choices in ((self.guidance, GUIDANCE), (self.fuse, FUSE), (self.order, ORDER)):
            if value not in choices:
                raise ValueError(f"{value}: expected one of {', '.join(choices)}")

    def rate(self, block: int) -> float | None:
        """The keep rate of a block counted from 1; None where nothing is selected."""
        return dict(zip(self.blocks, self.rates)).get(block)

    @property
    def metadata(self) -> dict[str, str]:
        if not self.blocks:
            return {}
        rates = self.rates[:1] if len(set(self.rates)) == 1 else self.rates
        return {
            "select": ",".join(map(str, self.blocks)),
            "keep_rate": ",".join(map(str, rates)),
            "guidance": self.guidance, "fuse": self.fuse, "order": self.order,
        }


def kept_count(rate: float, tokens: int) -> int:
    """ceil(rate * tokens); the slack keeps 0.7 * 10 at 7 in spite of binary fractions."""
    return min(tokens, max(1, math.ceil(rate * tokens - 1e-9)))


def text_scores(query: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """query [B,H,1,d] of the text's [CLS], keys [B,H,N,d] of the image tokens: scores [B,N]."""
    logits = query @ keys.transpose(-1, -2) / math.sqrt(int(keys.shape[-1]))
    return logits.softmax(-1).mean(1)[:, 0]


def image_scores(attention: torch.Tensor) -> torch.Tensor:
    """attention [B,H,1+N,1+N] of a block: what its [CLS] pays to each image token, [B,N]."""
    return attention[:, :, 0, 1:].mean(1)


def ranking(scores: torch.Tensor) -> torch.Tensor:
    """Positions by falling score; the lower position first where scores are equal."""
    if torch.onnx.is_in_onnx_export():
        return torch.topk(scores, scores.shape[1], dim=1).indices
    return torch.sort(scores, dim=1, descending=True, stable=True).indices


def select(x: torch.Tensor, scores: torch.Tensor, rate: float, options: Selection):
    """x [B,1+N,D] after the attention residual, scores [B,N].

    Returns the new stream [CLS, kept…, fused] and the kept positions, ascending.
    """
    tokens = int(x.shape[1]) - 1
    kept = kept_count(rate, tokens)
    if kept == tokens:
        everything = torch.arange(tokens, device=x.device).expand(x.shape[0], tokens)
        return x, everything
    ranked = ranking(scores)
    ascending = torch.sort(ranked[:, :kept], dim=1).values
    chosen = ranked[:, :kept] if options.order == "score" else ascending
    parts = [x[:, :1], rows(x[:, 1:], chosen)]
    if options.fuse != "none":
        dropped = ranked[:, kept:]
        parts.append(fused(rows(x[:, 1:], dropped), scores.gather(1, dropped), options.fuse))
    return torch.cat(parts, 1), ascending


def rows(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Rows `index` [B,K] of x [B,N,D]."""
    return x.gather(1, index.unsqueeze(-1).expand(-1, -1, x.shape[-1]))


def fused(x: torch.Tensor, weights: torch.Tensor, how: str) -> torch.Tensor:
    """One token [B,1,D] out of the dropped ones."""
    total = (weights.unsqueeze(-1) * x).sum(1, keepdim=True)
    if how == "weighted":
        return total
    mass = weights.sum(1).view(-1, 1, 1)
    return torch.where(mass > 0, total / mass, x.mean(1, keepdim=True))
