"""Trains the sample in three stages: to name what each patch shows, to answer questions, and to do so under selection.

    python tools/sample/train.py patches --work DIR --steps 1200 --batch 32
    python tools/sample/train.py answers --work DIR --steps 2200 --until 1500 --start patches
    python tools/sample/train.py text    --work DIR --steps 1000 --rate 5e-4 --start answers
    python tools/sample/train.py text    --work DIR --steps 1600 --rate 5e-4
    python tools/sample/train.py text    --work DIR --steps 2300 --rate 5e-4 --low

The last stage is done five times from the same weights: text, image-cls, random, text-drop, and none without selection.
Reads DIR/scenes (scenes.py), writes DIR/NAME.pt and DIR/NAME.log; started again, it goes on from DIR/NAME.pt. The
arithmetic of forward and backward is bfloat16 over fp32 weights.

A selecting model draws its keep rate anew for each batch. Beside the answers' cross-entropy there are three losses that
the paper does not have, all from knowing where things are: kind and colour of each patch; the text's score of a
selection is drawn to the patches asked about; so is what the fused [CLS] attends to.
"""

import argparse
import json
import math
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "reference"))

import configurations
import models
import weights
from selection import Selection, kept_count, select
from vision import patches, split_heads

import questions
from scenes import COLOR_NAMES, KIND_NAMES

RATES = (1.0, 0.9, 0.7, 0.5, 0.3)
DRAWN = (0.2, 0.1, 0.2, 0.25, 0.25)
"""How often training draws each keep rate: 0.9 costs most, and is nearest to its neighbours."""
DRAWN_LAST = (0.1, 0.05, 0.1, 0.25, 0.5)
"""The same at the end, when only the lowest rate still has much to gain."""
BLOCKS = (2, 4)
MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073])
DEVIATION = torch.tensor([0.26862954, 0.26130258, 0.27577711])
FIRST_STAGES = ("patches", "answers")
RUNS = {
    "patches": None,
    "answers": Selection(),
    "none": Selection(),
    "text": Selection(BLOCKS, (1.0,)),
    "image-cls": Selection(BLOCKS, (1.0,), "image-cls"),
    "random": Selection(BLOCKS, (1.0,), "random"),
    "text-drop": Selection(BLOCKS, (1.0,), "text", "none"),
}
QUESTIONS = 6


def normalised(images: np.ndarray) -> torch.Tensor:
    """uint8 [N,S,S,3] as a model takes it: [N,3,S,S]."""
    return ((torch.from_numpy(images).float() / 255 - MEAN) / DEVIATION).permute(0, 3, 1, 2).contiguous()


class Scenes:
    """The scenes of a split, read as they are asked for."""

    def __init__(self, work: Path, split: str, grid: int):
        self.split, self.grid = split, grid
        part = lambda name: np.load(work / "scenes" / f"{split}-{name}.npy", mmap_mode="r")
        self.images, self.objects, self.owners = part("images"), np.array(part("objects")), np.array(part("owners"))

    def __len__(self):
        return len(self.images)

    def batch(self, rows: np.ndarray, rng: np.random.Generator | None) -> dict:
        """Pictures, each patch's shares of things, questions; with `rng` tinted at random."""
        images, owners = self.images[rows], self.owners[rows]
        pictures = normalised(images)
        if rng is not None:
            pictures *= torch.from_numpy(rng.uniform(0.85, 1.15, (len(rows), 3, 1, 1)).astype(np.float32))
            pictures += torch.from_numpy(rng.uniform(-0.1, 0.1, (len(rows), 3, 1, 1)).astype(np.float32))
        shares = questions.covered(owners, self.grid)
        draws = [np.random.default_rng(int(row)) for row in rows] if rng is None else [rng] * len(rows)
        asked = np.stack([questions.draw(self.objects[row], self.split, draw, QUESTIONS) for row, draw in zip(rows, draws)])
        words = [questions.TABLE[sort, subject] for sort, subject in asked[..., :2].reshape(-1, 2).tolist()]
        thing = asked[..., 3]
        target = np.take_along_axis(shares, np.maximum(thing, 0)[..., None], 1) * (thing >= 0)[..., None]
        return {
            "image": pictures, "kinds": patch_classes(shares, self.objects[rows, :, 0], len(KIND_NAMES)),
            "colors": patch_classes(shares, self.objects[rows, :, 1], len(COLOR_NAMES)),
            "input_ids": torch.from_numpy(np.stack([ids for ids, _ in words])),
            "attention_mask": torch.from_numpy(np.stack([mask for _, mask in words])),
            "sorts": torch.from_numpy(asked[..., 0].reshape(-1)), "labels": torch.from_numpy(asked[..., 2].reshape(-1)),
            "target": torch.from_numpy(target.reshape(len(rows) * QUESTIONS, -1)).float(),
        }


def patch_classes(shares: np.ndarray, classes: np.ndarray, background: int) -> torch.Tensor:
    """[B,N]: the class of the thing that covers most of a patch, `background`, or -100 where that is not clear."""
    best = shares.argmax(1)
    most = shares.max(1)
    found = np.take_along_axis(classes.astype(np.int64), best, 1)
    return torch.from_numpy(np.where(most > 0.4, found, np.where(shares.sum(1) < 0.1, background, -100)))


class Probe(nn.Module):
    """Kind and colour out of a patch's state; used in training alone."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.kind, self.color = nn.Linear(width, len(KIND_NAMES) + 1), nn.Linear(width, len(COLOR_NAMES) + 1)

    def forward(self, states, batch):
        states = self.norm(states)
        kind, color = self.kind(states).float(), self.color(states).float()
        loss = (F.cross_entropy(kind.flatten(0, 1), batch["kinds"].flatten())
                + F.cross_entropy(color.flatten(0, 1), batch["colors"].flatten()))
        shown = (batch["kinds"] >= 0) & (batch["kinds"] < len(KIND_NAMES))
        return loss, (kind.argmax(-1) == batch["kinds"])[shown].float().mean()


class Trainee(nn.Module):
    """The model with the parts that only training needs."""

    def __init__(self, config, selection: Selection):
        super().__init__()
        self.model = models.make(config, selection)
        weights.initialise(self.model, 0)
        self.early, self.late = Probe(config.vision_width), Probe(config.vision_width)
        self.attended: list[torch.Tensor] = []
        for layer in self.model.bert.encoder.layer[config.text_layers:]:
            layer.crossattention.self.register_forward_hook(self.note)

    def note(self, projections, arguments, _):
        """What the first row's cross-attention pays to each image token, [B,1+N]."""
        x, source = arguments[0], arguments[1]
        query = split_heads(projections.query(x[:, :1]), projections.heads)
        key = split_heads(projections.key(source), projections.heads)
        self.attended.append((query @ key.transpose(-1, -2) / projections.scale).float().softmax(-1).mean(1).squeeze(1))

    def see(self, image, guide, selection: Selection, trace: dict):
        """The vision tower, run once per picture up to the first selection and once per question from there."""
        vision = self.model.visual_encoder
        x = patches(vision.patch_embed.proj(image))
        x = torch.cat([vision.cls_token.expand(x.shape[0], -1, -1), x], 1) + vision.pos_embed
        for index, block in enumerate(vision.blocks, 1):
            attended, key, attention = block.attn(block.normed(x))
            x = x + attended
            rate = selection.rate(index)
            if rate is not None:
                if x.shape[0] != guide.shape[0]:
                    key, attention = (part.repeat_interleave(QUESTIONS, 0) for part in (key, attention[:, :, :1]))
                scores = block.scores(key, attention, guide, selection.guidance)
                trace[f"selection.{index}.scores"] = scores
                if kept_count(rate, scores.shape[1]) < scores.shape[1]:
                    if x.shape[0] != guide.shape[0]:
                        x = x.repeat_interleave(QUESTIONS, 0)
                    x, trace[f"selection.{index}.indices"] = select(x, scores, rate, selection)
            x = x + block.feed_forward(x)
            trace[f"vision.{index}"] = x
        return vision.norm(x)

    def answer(self, batch, selection: Selection):
        """Logits, and the trace of what was selected."""
        model, trace, mask = self.model, {}, batch["attention_mask"]
        self.attended.clear()
        words, which = batch["input_ids"].unique(dim=0, return_inverse=True)
        text = model.bert.text(words, (words != 0).long(), model.config.text_layers, {})[which]
        trace["seen"] = states = self.see(batch["image"], text[:, :1], selection, trace)
        if states.shape[0] != text.shape[0]:
            states = states.repeat_interleave(QUESTIONS, 0)
        fused = model.bert.fuse(text, mask, [states], [models.ones(states)], model.config.text_layers, {})
        return model.cls_head(fused[:, 0]).float(), trace


def drawn_to(scores: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """- log of the share of the scores [B,N] that falls on the patches asked about, where there are any."""
    asked = target.sum(1) > 0.5
    return -((scores.float() * target).sum(1)[asked] + 1e-6).log().mean() if asked.any() else scores.sum() * 0


def losses(trainee: Trainee, batch: dict, selection: Selection | None) -> tuple[torch.Tensor, dict]:
    if selection is None:
        trace: dict = {}
        states = trainee.see(batch["image"], None, Selection(), trace)
        late, right = trainee.late(states[:, 1:], batch)
        early, right_early = trainee.early(trace[f"vision.{BLOCKS[0] - 1}"][:, 1:], batch)
        return late + 0.5 * early, {"patches": right, "early": right_early}
    logits, trace = trainee.answer(batch, selection)
    answers = F.cross_entropy(logits, batch["labels"])
    early, _ = trainee.early(trace[f"vision.{BLOCKS[0] - 1}"][:, 1:], batch)
    loss, target = answers + 0.2 * early, (batch["target"] > 0.3).float()
    left = {name: followed(batch[name], trace, selection, -100) for name in ("kinds", "colors")}
    loss = loss + 0.2 * trainee.late(trace["seen"][:, 1:], left)[0]
    for index in selection.blocks:
        if selection.guidance == "text":
            loss = loss + 0.2 * drawn_to(trace[f"selection.{index}.scores"], target)
        target = kept_of(target, trace.get(f"selection.{index}.indices"), selection, 0)
    for attended in trainee.attended:
        loss = loss + 0.2 * drawn_to(attended[:, 1:], target)
    return loss, {"loss": answers, "right": (logits.argmax(-1) == batch["labels"]).float().mean()}


def kept_of(values, kept, selection: Selection, fused: float) -> torch.Tensor:
    """Of values [B,N] those of the tokens that a selection leaves, and `fused` for the fused one."""
    if kept is None:
        return values
    if values.shape[0] != kept.shape[0]:
        values = values.repeat_interleave(QUESTIONS, 0)
    return F.pad(values.gather(1, kept), (0, int(selection.fuse != "none")), value=fused)


def followed(values, trace: dict, selection: Selection, fused: float) -> torch.Tensor:
    """What all selections leave of values [B,N]."""
    for index in selection.blocks:
        values = kept_of(values, trace.get(f"selection.{index}.indices"), selection, fused)
    return values


def at_rate(selection: Selection, rate: float) -> Selection:
    if not selection.blocks:
        return selection
    return Selection(selection.blocks, (rate,), selection.guidance, selection.fuse)


@torch.no_grad()
def validated(trainee: Trainee, scenes: Scenes, selection: Selection) -> dict:
    """Accuracy over validation questions by keep rate, and by sort of question at the lowest."""
    found = {}
    for rate in (RATES if selection.blocks else (1.0,)):
        right, sorts = [], []
        for first in range(0, 320, 64):
            batch = scenes.batch(np.arange(first, first + 64), None)
            logits, _ = trainee.answer(batch, at_rate(selection, rate))
            right.append(logits.argmax(-1) == batch["labels"])
            sorts.append(batch["sorts"])
        right, sorts = torch.cat(right).float(), torch.cat(sorts)
        found[rate] = [round(float(right.mean()), 3)] + [round(float(right[sorts == sort].mean()), 3) for sort in range(3)]
    return found


def train(options) -> None:
    torch.set_num_threads(options.threads)
    config, selection = configurations.named("scenes"), RUNS[options.run]
    trainee = Trainee(config, selection or Selection())
    name = options.name or options.run
    path = options.work / f"{name}.pt"
    optimizer = torch.optim.AdamW(trainee.parameters(), lr=options.rate, weight_decay=0.02, betas=(0.9, 0.98))
    step, seconds = 0, 0.0
    if path.exists():
        state = torch.load(path)
        trainee.load_state_dict(state["trainee"])
        optimizer.load_state_dict(state["optimizer"])
        step, seconds = state["step"], state["seconds"]
    elif options.start:
        trainee.load_state_dict(torch.load(options.work / f"{options.start}.pt")["trainee"])
    grid = config.image_size // config.patch
    scenes, unseen = Scenes(options.work, "train", grid), Scenes(options.work, "validation", grid)
    log, started, sums = open(options.work / f"{name}.log", "a"), time.process_time(), {}

    def note(entry: dict) -> None:
        print(json.dumps({"step": step, "seconds": round(seconds + time.process_time() - started)} | entry), file=log, flush=True)

    last = min(options.steps, options.until or options.steps)
    while step < last:
        rng = np.random.default_rng([options.seed, step])
        torch.manual_seed(options.seed * 1_000_003 + step)
        for group in optimizer.param_groups:
            group["lr"] = options.rate * min(1, (step + 1) / 200) * (0.02 + 0.98 * (1 + math.cos(math.pi * step / options.steps)) / 2)
        batch = scenes.batch(rng.integers(0, len(scenes), options.batch), rng)
        with torch.autocast("cpu", torch.bfloat16):
            chosen = selection and at_rate(selection, float(rng.choice(RATES, p=DRAWN_LAST if options.low else DRAWN)))
            loss, seen = losses(trainee, batch, chosen)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trainee.parameters(), 1.0)
        optimizer.step()
        step += 1
        for key, value in seen.items():
            sums[key] = sums.get(key, 0) + float(value.detach())
        if step % 100 == 0:
            note({key: round(value / 100, 4) for key, value in sums.items()})
            sums = {}
        if step % 250 == 0 or step == last:
            torch.save({"trainee": trainee.state_dict(), "optimizer": optimizer.state_dict(), "step": step,
                        "seconds": seconds + time.process_time() - started}, path.with_suffix(".part"))
            path.with_suffix(".part").rename(path)
            if selection is not None and step == last:
                note({"validation": validated(trainee, unseen, selection)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", choices=RUNS)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--until", type=int, help="stop at this step, the learning rate on its way")
    parser.add_argument("--start", help="the run whose weights to begin with")
    parser.add_argument("--name", help="of the files to write (default: the run's)")
    parser.add_argument("--batch", type=int, default=16, help="pictures")
    parser.add_argument("--rate", type=float, default=1e-3, help="of learning, at its highest")
    parser.add_argument("--low", action="store_true", help="draw the lowest keep rate in every other batch")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
