"""Draws what a selection keeps of one scene under two questions, as trips-run shows it.

    python tools/sample/pictures.py --package text.trips --other image-cls.trips --scene 3 --tools .build/release --out docs/sample-kept.png

The rows are two packages (one guided by the text, one by the image), the columns two questions about the scene.
"""

import argparse
import subprocess
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

import questions
from scenes import scene, table

SCALE, MARGIN, CAPTION = 2, 10, 38


def asked(tools: Path, package: Path, picture: Path, question: str, folder: Path) -> tuple[Image.Image, str]:
    """The picture with the kept patches bright, and the likeliest answer."""
    out, answers = folder / "kept.png", folder / "answers.txt"
    words = folder / "vocab.txt"
    answers.write_text("\n".join(questions.ANSWERS) + "\n")
    words.write_text("\n".join(questions.WORDS) + "\n")
    said = subprocess.run(
        [tools / "trips-run", package, "--image", picture, "--text", question, "--vocabulary", words, "--answers", answers,
         "--picture", out, "--force", "--quiet"], capture_output=True, text=True, check=True).stdout
    return Image.open(out).convert("RGB"), said.splitlines()[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", type=Path, required=True)
    parser.add_argument("--other", type=Path, required=True)
    parser.add_argument("--scene", type=int, default=0, help="number in the test split")
    parser.add_argument("--tools", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    image, things = scene(0, "test", options.scene)
    colors = [questions.text(*row[:2]) for row in questions.possible(table(things), "test")[0]][:2]
    side = image.shape[0] * SCALE
    font = ImageFont.load_default(13)
    page = Image.new("RGB", (3 * side + 4 * MARGIN, 2 * (side + CAPTION + MARGIN) + MARGIN), "white")
    draw = ImageDraw.Draw(page)

    def place(picture: Image.Image, column: int, row: int, words: str) -> None:
        x, y = MARGIN + column * (side + MARGIN), MARGIN + row * (side + CAPTION + MARGIN)
        page.paste(picture.resize((side, side), Image.Resampling.NEAREST), (x, y))
        draw.multiline_text((x + 2, y + side + 3), words, fill="black", font=font)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        Image.fromarray(image).save(folder / "scene.png")
        for row, (package, guide) in enumerate(((options.package, "text guides"), (options.other, "image guides"))):
            place(Image.fromarray(image), 0, row, guide)
            for column, question in enumerate(colors, 1):
                kept, answer = asked(options.tools, package, folder / "scene.png", question, folder)
                place(kept, column, row, f"{question}\n{answer}")
    page.save(options.out, optimize=True)


if __name__ == "__main__":
    main()
