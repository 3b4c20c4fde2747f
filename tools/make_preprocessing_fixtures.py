"""Makes Tests/Fixtures/preprocessing: pictures and sentences with what Pillow and Hugging Face's tokenizers make of them.

    python tools/make_preprocessing_fixtures.py [--out Tests/Fixtures/preprocessing]
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tokenizers import BertWordPieceTokenizer

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "reference"))

import export  # noqa: E402

MEAN = np.array((0.48145466, 0.4578275, 0.40821073), np.float32)
DEVIATION = np.array((0.26862954, 0.26130258, 0.27577711), np.float32)
SIDE = 24

WORDS = """[PAD] [UNK] [CLS] [SEP] [MASK] ! " # $ % & ' ( ) * + , - . / : ; < = > ? @ [ ] ^ _ ` { | } ~
the a an is are of on in to and red blue green dog cat ball grass two one what colour behind picture man woman
run sit play word piece un ##aff u cafe naive resume nino ##s ##ing ##ed ##er ##able ##ning ##a ##b ##c ##ffe ##piece ##n
2024 20 ##24 3 ##5 1 0 it s don t … “ ” 中 国 ü ñ ß ø""".split()

SENTENCES = [
    "", " ", "a dog", "The DOG is on the grass.", "two dogs running", "unaffable", "what's in the picture?",
    "Café naïve résumé niño", "wordpiece wordpieces", "don't (run)!", "2024 35 10", "a\tdog\nand  a cat",
    "中国 a中b", "xyzzy", "a" * 100, "a" * 101, "dog\u200b cat\u00ad", "ß ø Ü", "“red”…", "red/blue-green_ball",
    "[MASK] [CLS]", "\u0000dog\ufffd cat", "e\u0301 cafe\u0301", "\u00a0the\u3000man", "the man " * 12,
    "🐕 dog", "DOG'S", "1,000.5%", "a+b=c", "İstanbul", "ﬁne",
]


def scene(width: int, height: int, seed: int) -> np.ndarray:
    """Gradients, edges and noise, [height, width, 3]."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    planes = np.stack([255 * x / width, 255 * y / height, 255 * ((x // 5 + y // 4) % 2)], -1)
    return np.clip(planes + random.normal(0, 20, planes.shape), 0, 255).astype(np.uint8)


def as_ycck(path: Path) -> None:
    """Has Adobe's marker say of a CMYK file that three of its channels are a luminance and two colours: Pillow writes none such."""
    data = bytearray(path.read_bytes())
    data[data.index(b"Adobe") + 11] = 2
    path.write_bytes(data)


def pictures(out: Path) -> dict[str, torch.Tensor]:
    """Writes the files; the expected tensors by `FILE.resized` (uint8 [P,P,3]) and `FILE.image` (float [3,P,P])."""
    colour = Image.fromarray(scene(50, 37, 1))
    clear = Image.fromarray(np.dstack([scene(20, 31, 2), np.tile(np.arange(20, dtype=np.uint8) * 12, (31, 1))]), "RGBA")
    inks = Image.fromarray(np.dstack([scene(50, 37, 4), scene(50, 37, 5)[..., 0] // 2]), "CMYK")
    made = {
        "colour.png": (colour, {}), "small.png": (colour.crop((3, 3, 14, 10)), {}),
        "wide.png": (Image.fromarray(scene(90, 11, 3)), {}), "gray.png": (colour.convert("L"), {}),
        "palette.png": (colour.quantize(16), {}), "alpha.png": (clear, {}),
        "colour.jpg": (colour, {"quality": 85}), "full.jpg": (colour, {"quality": 95, "subsampling": 0}),
        "progressive.jpg": (colour, {"quality": 75, "progressive": True}), "gray.jpg": (colour.convert("L"), {"quality": 85}),
        "cmyk.jpg": (inks, {"quality": 85}), "ycck.jpg": (inks, {"quality": 85}),
    }
    expected = {}
    for name, (picture, options) in made.items():
        picture.save(out / name, **options)
        if name == "ycck.jpg":
            as_ycck(out / name)
        resized = Image.open(out / name).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        pixels = np.asarray(resized)
        normalised = (pixels.astype(np.float32) / 255 - MEAN) / DEVIATION
        expected[f"{name}.resized"] = torch.from_numpy(pixels.copy())
        expected[f"{name}.image"] = torch.from_numpy(normalised.transpose(2, 0, 1).astype(np.float32).copy())
    return expected


def sentences(out: Path) -> list[dict]:
    """Sentences with their ids, whole, and cut and padded to ten."""
    vocabulary = out / "vocab.txt"
    vocabulary.write_text("\n".join(dict.fromkeys(WORDS)) + "\n")
    whole, cut = (BertWordPieceTokenizer(str(vocabulary), lowercase=True) for _ in range(2))
    cut.enable_truncation(10)
    cut.enable_padding(length=10)
    cases = []
    for text in SENTENCES:
        padded = cut.encode(text)
        cases.append({"text": text, "ids": whole.encode(text).ids, "ids10": padded.ids, "mask10": padded.attention_mask})
    return cases


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE.parent / "Tests" / "Fixtures" / "preprocessing")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    export.save_file(pictures(out), out / "expected.safetensors", {"size": str(SIDE)})
    lines = ",\n".join(json.dumps(case) for case in sentences(out))
    (out / "sentences.json").write_text(f"[\n{lines}\n]\n")
    print(f"{out}: {sum(file.stat().st_size for file in out.iterdir()) / 1e3:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
