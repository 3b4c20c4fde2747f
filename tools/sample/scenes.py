"""Scenes to ask about: pictures of things on coloured discs, at random places and sizes, over a textured ground.

    python tools/sample/scenes.py --out DIR --split train --count 20000

The pictures come from the font Noto Color Emoji (SIL Open Font License 1.1; Debian's fonts-noto-color-emoji). A scene
depends on the seed, its split and its number alone. Every combination of kind, colour and cell of a 4 x 4 grid belongs to one
split: training never shows a combination that validation or test asks about.

Writes NAME-images.npy uint8 [N,S,S,3], NAME-objects.npy int16 [N,OBJECTS,5] (kind, colour, x, y, diameter; kind -1 where
there is none) and NAME-owners.npy uint8 [N,GRID,GRID]: which object's disc covers that point of the picture, or NOBODY.
"""

import argparse
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

FONT = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
GLYPH = 109
"""The one size in which the font holds its pictures."""

KINDS = {
    "carrot": "🥕", "frog": "🐸", "pig": "🐷", "bear": "🐻", "fish": "🐟", "book": "📘", "umbrella": "☂️", "grape": "🍇",
    "eggplant": "🍆", "tree": "🌲", "cactus": "🌵", "banana": "🍌", "star": "⭐", "sunflower": "🌻", "rose": "🌹",
    "heart": "❤️", "mushroom": "🍄", "football": "⚽", "penguin": "🐧", "panda": "🐼", "cat": "🐱", "burger": "🍔",
    "octopus": "🐙", "house": "🏠",
}
COLORS = {
    "red": (214, 40, 40), "orange": (247, 140, 30), "yellow": (248, 224, 60), "green": (60, 160, 70),
    "blue": (45, 95, 205), "purple": (140, 60, 170), "white": (245, 245, 245), "black": (25, 25, 25),
}
KIND_NAMES, COLOR_NAMES = list(KINDS), list(COLORS)
SPLITS = ("train", "validation", "test")
OBJECTS = 8
GRID = 32
NOBODY = 255
SIZE = 128
TURNS = np.random.default_rng(2024).integers(10, size=(len(KINDS), len(COLORS), 16))
"""By kind, colour and cell: 0 belongs to test, 1 to validation, the others to training."""


@dataclass(frozen=True)
class Thing:
    """A thing on its disc: centre and diameter in pixels of a picture of SIZE."""

    kind: int
    color: int
    x: int
    y: int
    diameter: int

    @property
    def words(self) -> str:
        return f"{article(KIND_NAMES[self.kind])} on {article(COLOR_NAMES[self.color])} disc"

    def is_apart(self, other: "Thing") -> bool:
        return (self.x - other.x) ** 2 + (self.y - other.y) ** 2 >= ((self.diameter + other.diameter) / 2 + 1) ** 2

    @property
    def split(self) -> str:
        cell = 4 * (4 * self.y // SIZE) + 4 * self.x // SIZE
        return {0: "test", 1: "validation"}.get(int(TURNS[self.kind, self.color, cell]), "train")


def article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def caption(things: list[Thing]) -> str:
    """What the scene shows, from left to right."""
    return ", ".join(thing.words for thing in sorted(things, key=lambda thing: thing.x))


def generator(seed: int, split: str, number: int) -> np.random.Generator:
    return np.random.default_rng([seed, SPLITS.index(split), number])


def arrange(rng: np.random.Generator, split: str, least: int = 6, smallest: int = 24, largest: int = 40) -> list[Thing]:
    """Things of different kinds whose discs do not overlap. Outside training, about half are of that split's own."""
    count = int(rng.integers(least, OBJECTS + 1))
    things: list[Thing] = []
    for place, kind in enumerate(rng.permutation(len(KINDS))[:count].tolist()):
        wanted = split if place % 2 == 0 else "train"
        for attempt in range(400):
            diameter = int(rng.integers(smallest, max(smallest + 1, largest + 1 - attempt // 12)))
            reach = (diameter + 1) // 2
            x, y = rng.integers(reach, SIZE - reach + 1, 2).tolist()
            thing = Thing(kind, int(rng.integers(len(COLORS))), x, y, diameter)
            if thing.split == wanted and all(thing.is_apart(other) for other in things):
                things.append(thing)
                break
    return things


@lru_cache(maxsize=None)
def glyph(kind: int) -> Image.Image:
    font = ImageFont.truetype(FONT, GLYPH)
    picture = Image.new("RGBA", (GLYPH * 2, GLYPH * 2))
    ImageDraw.Draw(picture).text((20, 20), KINDS[KIND_NAMES[kind]], font=font, embedded_color=True)
    picture = picture.crop(picture.getbbox())
    side = max(picture.size)
    square = Image.new("RGBA", (side, side))
    square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return square


@lru_cache(maxsize=None)
def face(kind: int, diameter: int) -> tuple[np.ndarray, np.ndarray]:
    """A thing as it lies in the middle of its disc: colours [D,D,3] and opacity [D,D,1]."""
    square = Image.new("RGBA", (diameter, diameter))
    side = round(0.72 * diameter)
    square.paste(glyph(kind).resize((side, side), Image.Resampling.LANCZOS), ((diameter - side) // 2,) * 2)
    values = np.asarray(square).astype(np.float32)
    return values[..., :3], values[..., 3:] / 255


@lru_cache(maxsize=None)
def disc(diameter: int) -> np.ndarray:
    """Its opacity [D,D,1], smooth at the edge."""
    large = Image.new("L", (4 * diameter, 4 * diameter))
    ImageDraw.Draw(large).ellipse((0, 0, 4 * diameter - 1, 4 * diameter - 1), fill=255)
    return np.asarray(large.resize((diameter, diameter), Image.Resampling.BOX))[..., None].astype(np.float32) / 255


def shade(rng: np.random.Generator, color: int) -> np.ndarray:
    """A colour as one disc has it."""
    return (np.array(list(COLORS.values())[color]) + rng.normal(0, 7, 3)).clip(0, 255)


def ground(rng: np.random.Generator, size: int) -> np.ndarray:
    """A tint, slow waves of it, and grain."""
    tint = rng.integers(90, 190, 3)
    coarse = (tint + rng.normal(0, 22, (6, 6, 3))).clip(0, 255).astype(np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC), np.float32)
    return smooth + rng.normal(0, 9, (size, size, 1)).astype(np.float32)


def render(rng: np.random.Generator, things: list[Thing], size: int = SIZE) -> np.ndarray:
    """The picture, uint8 [size,size,3]."""
    canvas = ground(rng, size)
    for thing in things:
        diameter = thing.diameter * size // SIZE
        top, left = (min(at * size // SIZE - diameter // 2, size - diameter) for at in (thing.y, thing.x))
        part = canvas[top : top + diameter, left : left + diameter]
        part += (shade(rng, thing.color) - part) * disc(diameter)
        colors, opacity = face(thing.kind, diameter)
        part += (colors - part) * opacity
    return canvas.clip(0, 255).astype(np.uint8)


def owners(things: list[Thing]) -> np.ndarray:
    places = (np.arange(GRID) + 0.5) * SIZE / GRID
    found = np.full((GRID, GRID), NOBODY, np.uint8)
    for number, thing in enumerate(things):
        squares = (places[None] - thing.x) ** 2 + (places[:, None] - thing.y) ** 2
        found[squares <= (thing.diameter / 2) ** 2] = number
    return found


def scene(seed: int, split: str, number: int, size: int = SIZE) -> tuple[np.ndarray, list[Thing]]:
    rng = generator(seed, split, number)
    things = arrange(rng, split)
    return render(rng, things, size), things


def table(things: list[Thing]) -> np.ndarray:
    rows = np.full((OBJECTS, 5), -1, np.int16)
    for number, thing in enumerate(things):
        rows[number] = (thing.kind, thing.color, thing.x, thing.y, thing.diameter)
    return rows


def things_of(rows: np.ndarray) -> list[Thing]:
    return [Thing(*map(int, row)) for row in rows if row[0] >= 0]


def write(folder: Path, split: str, count: int, seed: int, size: int = SIZE) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    name = folder / (split if size == SIZE else f"{split}{size}")
    images = np.lib.format.open_memmap(f"{name}-images.npy", "w+", np.uint8, (count, size, size, 3))
    objects, covers = np.empty((count, OBJECTS, 5), np.int16), np.empty((count, GRID, GRID), np.uint8)
    for number in range(count):
        images[number], things = scene(seed, split, number, size)
        objects[number], covers[number] = table(things), owners(things)
    images.flush()
    np.save(f"{name}-objects.npy", objects)
    np.save(f"{name}-owners.npy", covers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--split", choices=SPLITS, required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=SIZE, help="of the picture; the same scenes, drawn larger")
    options = parser.parse_args()
    write(options.out, options.split, options.count, options.seed, options.size)


if __name__ == "__main__":
    main()
