"""Writes a test set of scenes and questions for `trips-verify --accuracy` (formats/test-set.md).

    python tools/sample/test_set.py --scenes 80 --out test-set.safetensors

Every question that can be asked about the split's own combinations, and as many about things that are not there as about things
that are. `sorts` says what each asks for: 0 a colour, 1 a thing, 2 existence.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "reference"))

import export
import questions
from scenes import SIZE, SPLITS, scene, table


def all_questions(objects: np.ndarray, split: str, rng: np.random.Generator) -> list[tuple[int, int, int, int]]:
    """As questions.possible has them; of those about absent things as many, drawn at random, as about present ones."""
    colors, things, there, absent = questions.possible(objects, split)
    drawn = rng.permutation(len(absent))[: len(there)]
    return [*colors, *things, *there, *(absent[place] for place in drawn)]


def make(split: str, count: int, seed: int, size: int = SIZE, first: int = 0, without_picture: bool = False) -> dict:
    """Pictures, questions and right answers; `without_picture` gives each question the picture of another scene."""
    images, asked, owner = [], [], []
    for number in range(first, first + count):
        image, things = scene(seed, split, number, size)
        images.append(image)
        rows = all_questions(table(things), split, np.random.default_rng([seed, 9, number]))
        asked += rows
        owner += [number - first] * len(rows)
    words = [questions.TABLE[sort, subject] for sort, subject, _, _ in asked]
    owner = np.array(owner)
    if without_picture:
        owner = (owner + count // 2) % count
    return {
        "in.image": torch.from_numpy(np.stack(images)), "index.image": torch.from_numpy(owner),
        "in.input_ids": torch.from_numpy(np.stack([ids for ids, _ in words])),
        "in.attention_mask": torch.from_numpy(np.stack([mask for _, mask in words])),
        "labels": torch.tensor([answer for _, _, answer, _ in asked]),
        "sorts": torch.tensor([sort for sort, _, _, _ in asked]),
    }


def only(test_set: dict, sort: int) -> dict:
    """The questions of one sort."""
    chosen = test_set["sorts"] == sort
    return {name: tensor if name == "in.image" else tensor[chosen] for name, tensor in test_set.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--split", choices=SPLITS, default="test")
    parser.add_argument("--scenes", type=int, required=True)
    parser.add_argument("--first", type=int, default=0, help="number of the first scene")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=SIZE)
    parser.add_argument("--other-pictures", action="store_true", help="each question with the picture of another scene")
    parser.add_argument("--sort", choices=questions.SORTS, help="only questions of this sort")
    options = parser.parse_args()
    found = make(options.split, options.scenes, options.seed, options.size, options.first, options.other_pictures)
    if options.sort:
        found = only(found, questions.SORTS.index(options.sort))
    facts = {"split": options.split, "scenes": str(options.scenes), "first": str(options.first), "seed": str(options.seed),
             "size": str(options.size), "sorts": ",".join(questions.SORTS), "answers": ",".join(questions.ANSWERS)}
    export.save_file(found, options.out, facts)
    print(f"{options.out}: {len(found['labels'])} questions about {options.scenes} pictures")


if __name__ == "__main__":
    main()
