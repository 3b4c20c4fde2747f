"""The vision towers: ALBEF's ViT (timm's layout of names) and mPLUG's CLIP ViT."""

import torch
from torch import nn
from torch.nn import functional as F

from selection import Selection, image_scores, select, text_scores


def split_heads(x: torch.Tensor, heads: int) -> torch.Tensor:
    """[B,N,D] to [B,H,N,d]."""
    return x.reshape(x.shape[0], x.shape[1], heads, x.shape[2] // heads).transpose(1, 2)


def join_heads(x: torch.Tensor) -> torch.Tensor:
    """[B,H,N,d] to [B,N,D]."""
    x = x.transpose(1, 2)
    return x.reshape(x.shape[0], x.shape[1], x.shape[2] * x.shape[3])


class QuickGELU(nn.Module):
    def forward(self, x):
        return x * torch.sigmoid(1.702 * x)


class PackedAttention(nn.Module):
    """ALBEF: one product gives query, key and value; the scale follows the product of query and key."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x):
        """The attended x, the keys, and the attention's probabilities."""
        batch, tokens, width = x.shape
        packed = self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        query, key, value = packed[0], packed[1], packed[2]
        attention = ((query @ key.transpose(-2, -1)) * (width // self.heads) ** -0.5).softmax(-1)
        return self.proj(join_heads(attention @ value)), key, attention

    def query(self, x):
        width = x.shape[-1]
        return split_heads(F.linear(x, self.qkv.weight[:width], self.qkv.bias[:width]), self.heads)


class ClipAttention(nn.Module):
    """CLIP: the same under the names of torch's MultiheadAttention."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, x):
        packed = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        query, key, value = (split_heads(part, self.heads) for part in packed.chunk(3, -1))
        attention = (query * query.shape[-1] ** -0.5 @ key.transpose(-2, -1)).softmax(-1)
        return self.out_proj(join_heads(attention @ value)), key, attention

    def query(self, x):
        width = x.shape[-1]
        return split_heads(F.linear(x, self.in_proj_weight[:width], self.in_proj_bias[:width]), self.heads)


class Mlp(nn.Module):
    def __init__(self, width: int, inner: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))


class ClipMlp(nn.Module):
    def __init__(self, width: int, inner: int):
        super().__init__()
        self.c_fc, self.gelu, self.c_proj = nn.Linear(width, inner), QuickGELU(), nn.Linear(inner, width)

    def forward(self, x):
        return self.c_proj(self.gelu(self.c_fc(x)))


class Block(nn.Module):
    """A pre-norm block, in which a selection stands between attention and feed-forward part."""

    def normed(self, x):
        raise NotImplementedError

    def feed_forward(self, x):
        raise NotImplementedError

    def forward(self, x, index: int, guide, selection: Selection, trace: dict):
        attended, key, attention = self.attn(self.normed(x))
        x = x + attended
        rate = selection.rate(index)
        if rate is not None:
            scores = self.scores(key, attention, guide, selection.guidance)
            x, kept = select(x, scores, rate, selection)
            trace[f"selection.{index}.indices"], trace[f"selection.{index}.scores"] = kept, scores
        x = x + self.feed_forward(x)
        trace[f"vision.{index}"] = x
        return x

    def scores(self, key, attention, guide, guidance: str):
        if guidance == "text":
            return text_scores(self.attn.query(guide), key[:, :, 1:])
        if guidance == "image-cls":
            return image_scores(attention)
        return torch.rand(key.shape[0], key.shape[2] - 1)


class AlbefBlock(Block):
    def __init__(self, width: int, heads: int, inner: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = PackedAttention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, inner)

    def normed(self, x):
        return self.norm1(x)

    def feed_forward(self, x):
        return self.mlp(self.norm2(x))


class ClipBlock(Block):
    def __init__(self, width: int, heads: int, inner: int):
        super().__init__()
        self.attn = ClipAttention(width, heads)
        self.ln_1 = nn.LayerNorm(width, eps=1e-5)
        self.mlp = ClipMlp(width, inner)
        self.ln_2 = nn.LayerNorm(width, eps=1e-5)

    def normed(self, x):
        return self.ln_1(x)

    def feed_forward(self, x):
        return self.mlp(self.ln_2(x))


def patches(x: torch.Tensor) -> torch.Tensor:
    """[B,D,h,w] to [B,h*w,D], row by row."""
    return x.flatten(2).transpose(1, 2)


class AlbefVision(nn.Module):
    def __init__(self, config):
        super().__init__()
        width = config.vision_width
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.pos_embed = nn.Parameter(torch.empty(1, config.patches + 1, width))
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, width, config.patch, config.patch)
        self.blocks = nn.ModuleList(
            AlbefBlock(width, config.vision_heads, config.vision_ffn) for _ in range(config.vision_layers))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, image, guide, selection: Selection, trace: dict):
        x = patches(self.patch_embed.proj(image))
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], 1) + self.pos_embed
        trace["vision.0"] = x
        for index, block in enumerate(self.blocks, 1):
            x = block(x, index, guide, selection, trace)
        return self.norm(x)


class ClipVision(nn.Module):
    def __init__(self, config):
        super().__init__()
        width = config.vision_width
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.positional_embedding = nn.Parameter(torch.empty(config.patches + 1, width))
        self.conv1 = nn.Conv2d(3, width, config.patch, config.patch, bias=False)
        self.ln_pre = nn.LayerNorm(width, eps=1e-5)
        self.transformer = nn.Module()
        self.transformer.resblocks = nn.ModuleList(
            ClipBlock(width, config.vision_heads, config.vision_ffn) for _ in range(config.vision_layers))
        self.ln_post = nn.LayerNorm(width, eps=1e-5)

    def forward(self, image, guide, selection: Selection, trace: dict):
        x = patches(self.conv1(image))
        x = torch.cat([self.class_embedding.expand(x.shape[0], 1, -1), x], 1) + self.positional_embedding
        x = self.ln_pre(x)
        trace["vision.0"] = x
        for index, block in enumerate(self.transformer.resblocks, 1):
            x = block(x, index, guide, selection, trace)
        return self.ln_post(x)
