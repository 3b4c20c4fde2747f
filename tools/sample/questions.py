"""Questions about scenes, their answers, and their words as ids."""

import numpy as np

from scenes import COLOR_NAMES, KIND_NAMES, OBJECTS, article, things_of

ANSWERS = COLOR_NAMES + KIND_NAMES + ["no", "yes"]
SORTS = ("color", "thing", "existence")
"""What is asked for: the colour behind a thing, the thing on a colour, whether there is such a thing."""
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "?", "a", "an", "behind", "color", "disc", "is", "on", "the", "there",
         "what"] + COLOR_NAMES + KIND_NAMES
IDS = {word: number for number, word in enumerate(WORDS)}
LENGTH = 9
"""Tokens of the longest question, with [CLS] and [SEP]."""
NOTHING = -1


def text(sort: int, subject: int) -> str:
    """A question; its subject is a kind, or for `thing` a colour."""
    if SORTS[sort] == "color":
        return f"what color is behind the {KIND_NAMES[subject]} ?"
    if SORTS[sort] == "thing":
        return f"what is on the {COLOR_NAMES[subject]} disc ?"
    return f"is there {article(KIND_NAMES[subject])} ?"


def encode(question: str) -> tuple[np.ndarray, np.ndarray]:
    """Ids and mask [LENGTH]."""
    ids = [IDS["[CLS]"], *(IDS[word] for word in question.split()), IDS["[SEP]"]]
    padding = LENGTH - len(ids)
    return np.array(ids + [0] * padding), np.array([1] * len(ids) + [0] * padding)


TABLE = {(sort, subject): encode(text(sort, subject))
         for sort, subjects in enumerate((KIND_NAMES, COLOR_NAMES, KIND_NAMES)) for subject in range(len(subjects))}


def possible(objects: np.ndarray, split: str) -> list[list[tuple[int, int, int, int]]]:
    """All questions of each sort as (sort, subject, answer, number of the thing asked about or NOTHING).

    Only the split's own combinations are asked about; a colour is asked about where one disc has it.
    """
    things = things_of(objects)
    asked = [(number, thing) for number, thing in enumerate(things) if thing.split == split]
    colors = [thing.color for thing in things]
    shown = {thing.kind for thing in things}
    first = len(COLOR_NAMES)
    no, yes = len(ANSWERS) - 2, len(ANSWERS) - 1
    there = [(2, thing.kind, yes, number) for number, thing in asked]
    absent = [(2, kind, no, NOTHING) for kind in range(len(KIND_NAMES)) if kind not in shown]
    return [
        [(0, thing.kind, thing.color, number) for number, thing in asked],
        [(1, thing.color, first + thing.kind, number) for number, thing in asked if colors.count(thing.color) == 1],
        there, absent,
    ]


def draw(objects: np.ndarray, split: str, rng: np.random.Generator, count: int = 6) -> np.ndarray:
    """`count` questions about one scene, int [count,4]: colours, things and existence in turn, existence half yes."""
    colors, things, there, absent = possible(objects, split)
    rows = []
    for turn in range(count):
        pool = (colors, things or colors, there if rng.random() < 0.5 and there else absent)[turn % 3]
        rows.append(pool[rng.integers(len(pool))] if pool else absent[rng.integers(len(absent))])
    return np.array(rows)


def covered(owners: np.ndarray, grid: int) -> np.ndarray:
    """Share of each patch that each thing's disc covers: [N,OBJECTS,grid*grid] from owners [N,GRID,GRID]."""
    step = owners.shape[1] // grid
    inside = owners[:, None] == np.arange(OBJECTS, dtype=np.uint8)[None, :, None, None]
    return inside.reshape(len(owners), OBJECTS, grid, step, grid, step).mean((3, 5)).reshape(len(owners), OBJECTS, -1)
