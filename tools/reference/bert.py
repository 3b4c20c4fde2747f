"""BERT as ALBEF and mPLUG use it: text encoders, fusion encoders, decoders.

Masks are added to scores, as in the released code, or Boolean for PyTorch's own scaled dot-product attention.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

from vision import join_heads, split_heads

EPSILON = 1e-12


def self_mask(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """[B,L] of ones and zeros to an additive mask [B,1,1,L]; finite, so a row without keys averages."""
    if dtype == torch.bool:
        return mask[:, None, None, :].bool()
    return (1.0 - mask[:, None, None, :].to(dtype)) * -10000.0


def cross_mask(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The same for the keys of another sequence, with the larger constant of these models where the type holds it."""
    if dtype == torch.bool:
        return mask[:, None, None, :].bool()
    return (1.0 - mask[:, None, None, :].to(dtype)) * (-1e4 if dtype == torch.float16 else -1e9)


def causal_mask(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """[B,L] to an additive mask [B,1,L,L] under which no position sees a later one."""
    place = torch.arange(mask.shape[1], device=mask.device)
    causal = (place[None, :] <= place[:, None]).to(dtype)
    if dtype == torch.bool:
        return causal[None, None] & mask[:, None, None, :].bool()
    return (1.0 - causal[None, None] * mask[:, None, None, :].to(dtype)) * -10000.0


class Embeddings(nn.Module):
    def __init__(self, config):
        super().__init__()
        width = config.text_width
        self.word_embeddings = nn.Embedding(config.vocabulary, width)
        self.position_embeddings = nn.Embedding(config.positions, width)
        self.token_type_embeddings = nn.Embedding(2, width)
        self.LayerNorm = nn.LayerNorm(width, eps=EPSILON)
        self.register_buffer("position_ids", torch.arange(config.positions).unsqueeze(0))

    def forward(self, ids):
        words = self.word_embeddings(ids) + self.token_type_embeddings(torch.zeros_like(ids))
        return self.LayerNorm(words + self.position_embeddings(self.position_ids[:, : ids.shape[1]]))


class Projections(nn.Module):
    def __init__(self, width: int, source: int, heads: int):
        super().__init__()
        self.heads, self.scale = heads, math.sqrt(width // heads)
        self.query, self.key, self.value = nn.Linear(width, width), nn.Linear(source, width), nn.Linear(source, width)

    def forward(self, x, source, mask):
        query = split_heads(self.query(x), self.heads)
        key, value = split_heads(self.key(source), self.heads), split_heads(self.value(source), self.heads)
        if mask.dtype == torch.bool:
            return join_heads(F.scaled_dot_product_attention(query, key, value, attn_mask=mask))
        scores = query @ key.transpose(-1, -2) / self.scale + mask
        return join_heads(scores.softmax(-1) @ value)


class AddNorm(nn.Module):
    def __init__(self, inner: int, width: int):
        super().__init__()
        self.dense = nn.Linear(inner, width)
        self.LayerNorm = nn.LayerNorm(width, eps=EPSILON)

    def forward(self, x, residual):
        return self.LayerNorm(self.dense(x) + residual)


class Attention(nn.Module):
    def __init__(self, config, source: int):
        super().__init__()
        self.self = Projections(config.text_width, source, config.text_heads)
        self.output = AddNorm(config.text_width, config.text_width)

    def forward(self, x, source, mask):
        return self.output(self.self(x, source, mask), x)


class Intermediate(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.dense = nn.Linear(config.text_width, config.text_ffn)

    def forward(self, x):
        return F.gelu(self.dense(x))


class Layer(nn.Module):
    """Post-norm: self-attention, cross-attention where it has one, feed-forward part."""

    def __init__(self, config, crosses: bool):
        super().__init__()
        self.attention = Attention(config, config.text_width)
        if crosses:
            self.crossattention = Attention(config, config.text_width)
        self.intermediate = Intermediate(config)
        self.output = AddNorm(config.text_ffn, config.text_width)

    def forward(self, x, mask, source=None, source_mask=None):
        x = self.attention(x, x, mask)
        if source is not None:
            x = self.crossattention(x, source, source_mask)
        return self.output(self.intermediate(x), x)


class Bert(nn.Module):
    """Embeddings and layers; `crosses` says which layers hold a cross-attention."""

    def __init__(self, config, crosses: list[bool]):
        super().__init__()
        self.boolean_masks = config.boolean_masks
        self.embeddings = Embeddings(config)
        self.encoder = nn.Module()
        self.encoder.layer = nn.ModuleList(Layer(config, cross) for cross in crosses)

    def mask_type(self, x: torch.Tensor) -> torch.dtype:
        return torch.bool if self.boolean_masks else x.dtype

    def text(self, ids, mask, layers: int, trace: dict):
        """The first layers, over text alone."""
        x = self.embeddings(ids)
        mask = self_mask(mask, self.mask_type(x))
        trace["text.0"] = x
        for index in range(layers):
            x = self.encoder.layer[index](x, mask)
            trace[f"text.{index + 1}"] = x
        return x

    def fuse(self, x, mask, sources, source_masks, first: int, trace: dict):
        """Layers from `first` on, each attending the next of the sources in turn."""
        dtype = self.mask_type(x)
        mask, source_masks = self_mask(mask, dtype), [cross_mask(one, dtype) for one in source_masks]
        trace["fusion.0"] = x
        for index, layer in enumerate(self.encoder.layer[first:]):
            turn = index % len(sources)
            x = layer(x, mask, sources[turn], source_masks[turn])
            trace[f"fusion.{index + 1}"] = x
        return x

    def decode(self, ids, mask, source, source_mask, trace: dict):
        """All layers under the causal mask."""
        x = self.embeddings(ids)
        dtype = self.mask_type(x)
        mask, source_mask = causal_mask(mask, dtype), cross_mask(source_mask, dtype)
        trace["decoder.0"] = x
        for index, layer in enumerate(self.encoder.layer, 1):
            x = layer(x, mask, source, source_mask)
            trace[f"decoder.{index}"] = x
        return x


class ConnectedFusion(Bert):
    """mPLUG's fusion: every `stride_layer`-th running layer attends over image and text together."""

    def __init__(self, config):
        super().__init__(config, [True] * config.stored_fusion_layers)
        self.first = config.stored_fusion_layers - config.fusion_layers
        self.stride = config.stride_layer

    def forward(self, text, mask, image, image_mask, trace: dict):
        """The image states and the text states after the last layer."""
        dtype = self.mask_type(text)
        mask, image_mask = self_mask(mask, dtype), cross_mask(image_mask, dtype)
        trace["fusion.0"] = text
        length = image.shape[1]
        for index, layer in enumerate(self.encoder.layer[self.first:]):
            if index and index % self.stride == 0:
                both = layer(torch.cat([image, text], 1), torch.cat([image_mask, mask], 3))
                image, text = image + both[:, :length], both[:, length:]
                trace[f"fusion.{index + 1}.image"] = image
            else:
                text = layer(text, mask, image, image_mask)
            trace[f"fusion.{index + 1}"] = text
        return image, text


class Transform(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.LayerNorm = nn.LayerNorm(width, eps=EPSILON)

    def forward(self, x):
        return self.LayerNorm(F.gelu(self.dense(x)))


class LanguageModel(nn.Module):
    """A BERT with the head that predicts words; the head shares the word embeddings."""

    def __init__(self, config, crosses: list[bool]):
        super().__init__()
        self.bert = Bert(config, crosses)
        head = nn.Module()
        head.bias = nn.Parameter(torch.empty(config.vocabulary))
        head.transform = Transform(config.text_width)
        head.decoder = nn.Linear(config.text_width, config.vocabulary)
        head.decoder.weight = self.bert.embeddings.word_embeddings.weight
        head.decoder.bias = head.bias
        self.cls = nn.Module()
        self.cls.predictions = head

    def logits(self, states):
        head = self.cls.predictions
        return head.decoder(head.transform(states))
