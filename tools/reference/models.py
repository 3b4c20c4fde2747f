"""ALBEF and mPLUG for every task, under the key names of the released checkpoints.

Each class names its graphs: the functions that a converted package holds, with their inputs and outputs.
A graph takes its inputs by name and a trace, into which the intermediates go, and returns outputs by name.
"""

from dataclasses import replace

import torch
from torch import nn
from torch.nn import functional as F

from bert import EPSILON, Bert, ConnectedFusion, LanguageModel
from selection import Selection
from vision import AlbefVision, ClipVision

ENCODER_INPUTS = ("image", "input_ids", "attention_mask")
MATCHING_OUTPUTS = ("itm_logits", "image_feat", "text_feat", "image_embeds", "text_embeds")


def ones(states: torch.Tensor) -> torch.Tensor:
    """The mask of image tokens: all of them count."""
    return torch.ones(states.shape[:-1], dtype=torch.int64, device=states.device)


class Model(nn.Module):
    graphs: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {}

    def __init__(self, config, selection: Selection):
        super().__init__()
        if max(selection.blocks, default=1) > config.vision_layers or min(selection.blocks, default=1) < 1:
            raise ValueError(f"selection in blocks {selection.blocks} of {config.vision_layers}")
        if selection.blocks and selection.guidance == "text" and config.vision_width != config.text_width:
            raise ValueError(
                f"text guidance needs equal widths: vision {config.vision_width}, text {config.text_width}")
        self.config, self.selection = config, selection

    def run(self, graph: str, inputs: dict, trace: dict | None = None) -> dict:
        """One graph's outputs by name."""
        names, outputs = self.graphs[graph]
        results = getattr(self, graph)(*(inputs[name] for name in names), trace={} if trace is None else trace)
        return dict(zip(outputs, results, strict=True))


class Matching(nn.Module):
    """Projections into the common space and the image-text matching head, shared by both families."""

    @staticmethod
    def add(model, config):
        model.vision_proj = nn.Linear(config.text_width, config.embed_dim)
        model.text_proj = nn.Linear(config.text_width, config.embed_dim)

    @staticmethod
    def outputs(model, image, text, fused):
        image_feat = F.normalize(model.vision_proj(image[:, 0]), dim=-1)
        text_feat = F.normalize(model.text_proj(text[:, 0]), dim=-1)
        return model.itm_head(fused[:, 0]), image_feat, text_feat, image, text


def classifier(width: int, classes: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, classes))


class Albef(Model):
    def __init__(self, config, selection):
        super().__init__(config, selection)
        self.visual_encoder = AlbefVision(config)
        self.text_encoder = self.make_text_encoder(config)

    def make_text_encoder(self, config):
        return Bert(config, self.crosses(config))

    def crosses(self, config, repeat: int = 1) -> list[bool]:
        return [False] * config.text_layers + [True] * config.fusion_layers * repeat

    @property
    def bert(self) -> Bert:
        return self.text_encoder

    def encode_pair(self, image, input_ids, attention_mask, trace):
        """Image states, text states, fused text states."""
        text = self.bert.text(input_ids, attention_mask, self.config.text_layers, trace)
        states = self.visual_encoder(image, text[:, :1], self.selection, trace)
        fused = self.bert.fuse(text, attention_mask, [states], [ones(states)], self.config.text_layers, trace)
        return states, text, fused


class AlbefRetrieval(Albef):
    graphs = {"main": (ENCODER_INPUTS, MATCHING_OUTPUTS)}

    def __init__(self, config, selection):
        super().__init__(config, selection)
        Matching.add(self, config)
        self.itm_head = nn.Linear(config.text_width, 2)
        self.temp = nn.Parameter(torch.empty(()))

    def main(self, image, input_ids, attention_mask, trace):
        return Matching.outputs(self, *self.encode_pair(image, input_ids, attention_mask, trace))


class AlbefPretrain(AlbefRetrieval):
    def make_text_encoder(self, config):
        return LanguageModel(config, self.crosses(config))

    @property
    def bert(self):
        return self.text_encoder.bert


class AlbefVE(Albef):
    graphs = {"main": (ENCODER_INPUTS, ("prediction",))}

    def __init__(self, config, selection):
        super().__init__(config, selection)
        self.cls_head = classifier(config.text_width, config.classes)

    def main(self, image, input_ids, attention_mask, trace):
        return (self.cls_head(self.encode_pair(image, input_ids, attention_mask, trace)[2][:, 0]),)


class AlbefNLVR2(Albef):
    graphs = {"main": (("image0", "image1", "input_ids", "attention_mask"), ("prediction",))}

    def __init__(self, config, selection):
        super().__init__(config, selection)
        self.cls_head = classifier(config.text_width, config.classes)
        layers = self.bert.encoder.layer[config.text_layers:]
        for first, second in zip(layers[::2], layers[1::2]):
            for name in ("key", "value"):
                tied = getattr(second.crossattention.self, name)
                setattr(first.crossattention.self, name, tied)

    def make_text_encoder(self, config):
        return Bert(config, self.crosses(config, repeat=2))

    def main(self, image0, image1, input_ids, attention_mask, trace):
        text = self.bert.text(input_ids, attention_mask, self.config.text_layers, trace)
        guide = text[:, :1]
        states = self.visual_encoder(
            torch.cat([image0, image1]), torch.cat([guide, guide]), self.selection, trace)
        images = states.chunk(2)
        fused = self.bert.fuse(
            text, attention_mask, images, [ones(image) for image in images], self.config.text_layers, trace)
        return (self.cls_head(fused[:, 0]),)


class AlbefVQA(Albef):
    graphs = {
        "encode": (ENCODER_INPUTS, ("question_states",)),
        "decode": (("question_states", "attention_mask", "answer_ids", "answer_mask"), ("answer_logits",)),
    }

    def __init__(self, config, selection):
        super().__init__(config, selection)
        self.text_decoder = LanguageModel(config, [True] * config.decoder_layers)

    def encode(self, image, input_ids, attention_mask, trace):
        return (self.encode_pair(image, input_ids, attention_mask, trace)[2],)

    def decode(self, question_states, attention_mask, answer_ids, answer_mask, trace):
        states = self.text_decoder.bert.decode(answer_ids, answer_mask, question_states, attention_mask, trace)
        return (self.text_decoder.logits(states),)


class Mplug(Model):
    def __init__(self, config, selection):
        super().__init__(config, selection)
        self.visual_encoder = nn.Module()
        self.visual_encoder.visual = ClipVision(config)
        if config.vision_width != config.text_width:
            self.visn_fc = nn.Linear(config.vision_width, config.text_width)
            self.visn_layer_norm = nn.LayerNorm(config.text_width, eps=EPSILON)
        self.text_encoder = Bert(config, [False] * config.text_layers)
        self.fusion_encoder = ConnectedFusion(config)

    def see(self, image, guide, trace):
        states = self.visual_encoder.visual(image, guide, self.selection, trace)
        if self.config.vision_width != self.config.text_width:
            states = self.visn_layer_norm(self.visn_fc(states))
        return states

    def encode_pair(self, image, input_ids, attention_mask, trace):
        """Image states before and after fusion, text states before and after fusion."""
        text = self.text_encoder.text(input_ids, attention_mask, self.config.text_layers, trace)
        states = self.see(image, text[:, :1], trace)
        fused_image, fused_text = self.fusion_encoder(text, attention_mask, states, ones(states), trace)
        return states, fused_image, text, fused_text


class MplugRetrieval(Mplug):
    graphs = {"main": (ENCODER_INPUTS, MATCHING_OUTPUTS)}

    def __init__(self, config, selection):
        super().__init__(config, selection)
        Matching.add(self, config)
        self.itm_head = nn.Linear(config.text_width, 2)
        self.temp = nn.Parameter(torch.empty(()))

    def main(self, image, input_ids, attention_mask, trace):
        states, _, text, fused = self.encode_pair(image, input_ids, attention_mask, trace)
        return Matching.outputs(self, states, text, fused)


class MplugVQA(Mplug):
    graphs = {
        "encode": (ENCODER_INPUTS, ("question_output", "question_atts", "image_embeds", "text_embeds")),
        "decode": (("decoder_ids", "question_output", "question_atts"), ("logits", "next_logits")),
    }

    def __init__(self, config, selection):
        super().__init__(config, selection)
        self.text_decoder = LanguageModel(config, [True] * config.decoder_layers)

    def encode(self, image, input_ids, attention_mask, trace):
        states, fused_image, text, fused_text = self.encode_pair(image, input_ids, attention_mask, trace)
        question = torch.cat([fused_image, fused_text], 1)
        return question, torch.cat([ones(states), attention_mask], 1), states, text

    def decode(self, decoder_ids, question_output, question_atts, trace):
        states = self.text_decoder.bert.decode(
            decoder_ids, torch.ones_like(decoder_ids), question_output, question_atts, trace)
        logits = self.text_decoder.logits(states)
        return logits, logits[:, -1]


class MplugGrounding(MplugVQA):
    """The decoder may only say coordinates: `bbox_prob_mask` is added to its logits."""

    def __init__(self, config, selection):
        super().__init__(config, selection)
        Matching.add(self, config)
        first = config.prefix_id + 1
        mask = torch.full((config.vocabulary,), -10000.0)
        mask[first : first + config.targets] = 0
        self.register_buffer("prefix_ids", torch.tensor([config.prefix_id]))
        self.register_buffer("target_ids", torch.arange(first, first + config.targets))
        self.register_buffer("bbox_prob_mask", mask)

    def decode(self, decoder_ids, question_output, question_atts, trace):
        logits, _ = super().decode(decoder_ids, question_output, question_atts, trace)
        logits = logits + self.bbox_prob_mask
        return logits, logits[:, -1]


class MplugCaption(Mplug):
    """Text and fusion encoder are stored and never run."""

    graphs = {
        "encode": (("image",), ("image_embeds",)),
        "decode": (("decoder_ids", "image_embeds"), ("logits", "next_logits")),
    }

    def __init__(self, config, selection):
        if selection.blocks and selection.guidance == "text":
            raise ValueError("captioning has no text before the image is read: choose guidance image-cls")
        super().__init__(config, selection)
        self.text_decoder = LanguageModel(config, [True] * config.decoder_layers)

    def encode(self, image, trace):
        return (self.see(image, None, trace),)

    def decode(self, decoder_ids, image_embeds, trace):
        states = self.text_decoder.bert.decode(
            decoder_ids, torch.ones_like(decoder_ids), image_embeds, ones(image_embeds), trace)
        logits = self.text_decoder.logits(states)
        return logits, logits[:, -1]


CLASSES = {
    "albef-pretrain": AlbefPretrain, "albef-retrieval": AlbefRetrieval, "albef-vqa": AlbefVQA,
    "albef-nlvr2": AlbefNLVR2, "albef-ve": AlbefVE,
    "mplug-vqa": MplugVQA, "mplug-caption": MplugCaption, "mplug-retrieval": MplugRetrieval,
    "mplug-grounding": MplugGrounding,
}


def make(config, selection: Selection = Selection()) -> Model:
    return CLASSES[config.architecture](config, selection).eval()


def resized(model: Model, image_size: int) -> Model:
    """The same model for another picture size: its position embedding resampled, the [CLS] row kept.

    ALBEF's loaders do that with bicubic interpolation, mPLUG's with bilinear.
    """
    config = replace(model.config, image_size=image_size)
    name, mode = {"albef": ("visual_encoder.pos_embed", "bicubic"),
                  "mplug": ("visual_encoder.visual.positional_embedding", "bilinear")}[config.family]
    state = model.state_dict()
    rows = state[name].reshape(-1, config.vision_width)
    side = round((len(rows) - 1) ** 0.5)
    grid = rows[1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    count = image_size // config.patch
    grid = F.interpolate(grid, (count, count), mode=mode, align_corners=False).permute(0, 2, 3, 1).flatten(0, 2)
    state[name] = torch.cat([rows[:1], grid]).reshape(*state[name].shape[:-2], -1, config.vision_width)
    other = make(config, model.selection)
    other.load_state_dict(state)
    return other
