"""Decoding loops: mPLUG's beam search, ALBEF's ranking of answers, grounding's four coordinates.

Each is a function of logits alone and works on one example, as goldens hold one.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional as F


@dataclass(frozen=True)
class Beam:
    width: int = 5
    min_length: int = 1
    max_length: int = 10
    start_id: int = 101
    end_id: int = 102
    alpha: float = 0.6

    @property
    def metadata(self) -> dict[str, str]:
        return {"beam": str(self.width), "min_length": str(self.min_length), "max_length": str(self.max_length),
                "start_id": str(self.start_id), "end_id": str(self.end_id), "alpha": str(self.alpha)}


@dataclass(frozen=True)
class Hypothesis:
    ids: list[int]
    score: float
    step: int


def beam_search(next_logits, beam: Beam) -> tuple[Hypothesis, list[Hypothesis]]:
    """The best hypothesis and all finished ones.

    `next_logits` maps prefixes [beam, T] to logits [beam, V]. The search stops when its top beam ends, or at
    `max_length`. A hypothesis that ends lower in the beam is stored and stays in the beam, end token and all.
    """
    prefixes = torch.full((beam.width, 1), beam.start_id)
    cumulative = torch.full((beam.width,), float("-inf"))
    cumulative[0] = 0
    finished: list[Hypothesis] = []
    for step in range(beam.max_length):
        scores = next_logits(prefixes).softmax(-1).log()
        if step < beam.min_length:
            scores[:, beam.end_id] = -1e20
        penalty = ((5.0 + (step + 1)) / 6.0) ** beam.alpha
        penalised = (scores + cumulative[:, None]) / penalty
        vocabulary = penalised.shape[1]
        best, flat = penalised.flatten().topk(beam.width)
        cumulative = best * penalty
        prefixes = torch.cat([prefixes[flat // vocabulary], (flat % vocabulary)[:, None]], 1)
        ended = prefixes[:, -1] == beam.end_id
        done = bool(ended[0]) or step + 1 == beam.max_length
        finished += [Hypothesis(prefixes[row].tolist(), best[row].item(), step)
                     for row in range(beam.width) if done or ended[row]]
        if done:
            break
    return max(finished, key=lambda hypothesis: hypothesis.score), finished


def rank_answers(answer_logits, answer_ids: torch.Tensor, answer_mask: torch.Tensor, k: int):
    """ALBEF's ranking: the k answers with the likeliest first token, ordered by the probability of the whole.

    `answer_logits` maps ids and mask [C,A] to logits [C,A,V]; answers [C,A] start with the start token.
    Returns indices and probabilities [k], the likeliest first.
    """
    start = answer_ids[:1, :1]
    first = answer_logits(start, torch.ones_like(start))[0, 0].softmax(-1)[answer_ids[:, 1]]
    chance, candidates = first.topk(k)
    ids, mask = answer_ids[candidates], answer_mask[candidates]
    logits = answer_logits(ids, mask)[:, :-1]
    targets = ids[:, 1:].masked_fill(mask[:, 1:] == 0, -100)
    loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view(targets.shape)
    total = chance.log() - loss.sum(1)
    probabilities, order = total.softmax(-1).topk(k)
    return candidates[order], probabilities


def ground(next_logits, prefix_ids: torch.Tensor, target_ids: torch.Tensor) -> torch.Tensor:
    """The box [4] as fractions of the picture: four greedy steps after the prefix."""
    ids = prefix_ids[None]
    for _ in range(4):
        ids = torch.cat([ids, next_logits(ids).argmax(-1, keepdim=True)], 1)
    return (ids[0, 1:] - target_ids[0]).to(torch.float32) / (len(target_ids) - 1)
