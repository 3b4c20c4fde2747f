"""Makes a model and what it computes: checkpoint, ONNX, goldens.

    python tools/reference/make.py --config albef-base-256 --out DIR --select 5,10 --keep-rate 0.7

Writes into DIR, as --write asks:
    checkpoint      checkpoint.safetensors
    pth, pt         checkpoint.pth (torch's zip form), checkpoint.pt (its older form)
    onnx            model.onnx, or encode.onnx and decode.onnx
    select-onnx     select.onnx, select-encode.onnx: with the selection inside
    golden          golden.safetensors (golden-N.safetensors if --goldens is above 1)
    select-golden   golden-select.safetensors (or golden-select-N.safetensors): under --select
    task            golden-beam, golden-greedy, golden-ranking, golden-box, as the architecture has it
"""

import argparse
import sys
from pathlib import Path

import configurations
import export
import models
import weights
from generation import Beam
from selection import FUSE, GUIDANCE, ORDER, Selection

PARTS = ("checkpoint", "pth", "pt", "onnx", "select-onnx", "golden", "select-golden", "task")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help=configurations.named.__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--write", default="checkpoint,onnx,golden", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--seed", type=int, default=0, help="of the weights")
    parser.add_argument("--input-seed", type=int, default=0, help="of the first golden's inputs")
    parser.add_argument("--image-size", type=int, help="of goldens and ONNX: resamples the position embedding")
    parser.add_argument("--unused", action="store_true", help="also the tensors that released files carry unused")
    parser.add_argument("--planted-outliers", action="store_true",
                        help="eightfold channels in LayerNorm weights and feed-forward outputs")
    parser.add_argument("--select", help="1-based blocks, as 5,10")
    parser.add_argument("--keep-rate", default="0.7", help="one for all blocks, or one per block")
    parser.add_argument("--guidance", choices=GUIDANCE)
    parser.add_argument("--fuse", choices=FUSE, default="normalized")
    parser.add_argument("--order", choices=ORDER, default="original")
    parser.add_argument("--text-length", type=int)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--goldens", type=int, default=1, help="how many input sets")
    parser.add_argument("--full-text", action="store_true", help="no padding in the first text of a batch")
    parser.add_argument("--no-intermediates", action="store_true", help="none but those of selections")
    parser.add_argument("--opset", type=int, default=17)
    parser.add_argument("--dynamic", action="store_true", help="batch and lengths stay open")
    parser.add_argument("--dynamo", action="store_true", help="torch's newer exporter")
    parser.add_argument("--no-fold", action="store_true", help="leave constants as the exporter finds them")
    parser.add_argument("--beam", type=int, default=5)
    parser.add_argument("--min-length", type=int, default=1)
    parser.add_argument("--max-length", type=int, default=10)
    parser.add_argument("--candidates", type=int, default=12)
    parser.add_argument("--top-k", type=int, default=5)
    return parser.parse_args()


def selection_of(options, config) -> Selection:
    if not options.select:
        return Selection()
    guidance = options.guidance or ("image-cls" if config.architecture == "mplug-caption" else "text")
    return Selection(tuple(map(int, options.select.split(","))), tuple(map(float, options.keep_rate.split(","))),
                     guidance, options.fuse, options.order)


def select(model, selection: Selection):
    """The same model with another selection."""
    other = models.make(model.config, selection)
    other.load_state_dict(model.state_dict())
    return other


def write_goldens(model, options, stem: str, length: int) -> None:
    for index in range(options.goldens):
        seed = options.input_seed + index
        inputs = export.inputs_for(model, seed, length, options.batch, options.full_text and index == 0)
        name = stem if options.goldens == 1 else f"{stem}-{index}"
        export.write_golden(options.out / f"{name}.safetensors",
                            export.golden(model, inputs, not options.no_intermediates),
                            export.metadata(model, seed, options.config))


def write_onnx(model, options, prefix: str, length: int, graphs) -> None:
    inputs = export.inputs_for(model, options.input_seed, length, options.batch)
    for graph in graphs:
        name = ("select" if prefix else "model") if graph == "main" else prefix + graph
        path = options.out / f"{name}.onnx"
        export.write_onnx(model, graph, inputs, path, options.opset, options.dynamic, options.dynamo, not options.no_fold)


def write_task(model, options, length: int) -> None:
    config = model.config
    inputs = export.inputs_for(model, options.input_seed, length)
    facts = export.metadata(model, options.input_seed, options.config)
    if config.architecture in ("mplug-vqa", "mplug-caption"):
        for name, width in (("beam", options.beam), ("greedy", 1)):
            beam = Beam(width, options.min_length, options.max_length, config.start_id, config.end_id)
            tensors, extra, _ = export.generated(model, inputs, beam)
            export.write_golden(options.out / f"golden-{name}.safetensors", tensors, facts | extra)
    elif config.architecture == "albef-vqa":
        tensors, extra = export.ranked(model, inputs, options.candidates, 6, options.top_k, options.input_seed)
        export.write_golden(options.out / "golden-ranking.safetensors", tensors, facts | extra)
    elif config.architecture == "mplug-grounding":
        export.write_golden(options.out / "golden-box.safetensors", export.grounded(model, inputs), facts)


def main() -> int:
    options = arguments()
    parts = options.write.split(",")
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        raise SystemExit(f"--write {','.join(unknown)}: expected {', '.join(PARTS)}")
    config = configurations.named(options.config)
    length = options.text_length or (40 if config.positions > 100 else 12)
    options.out.mkdir(parents=True, exist_ok=True)
    model = models.make(config)
    weights.initialise(model, options.seed, options.planted_outliers)
    for part, suffix in (("checkpoint", "safetensors"), ("pth", "pth"), ("pt", "pt")):
        if part in parts:
            export.write_checkpoint(model, options.out / f"checkpoint.{suffix}", options.seed, options.unused)
    if options.image_size:
        model = models.resized(model, options.image_size)
    if "golden" in parts:
        write_goldens(model, options, "golden", length)
    if "task" in parts:
        write_task(model, options, length)
    if "onnx" in parts:
        write_onnx(model, options, "", length, model.graphs)
    if {"select-golden", "select-onnx"} & set(parts):
        selecting = select(model, selection_of(options, model.config))
        if "select-golden" in parts:
            write_goldens(selecting, options, "golden-select", length)
        if "select-onnx" in parts:
            write_onnx(selecting, options, "select-", length, [next(iter(model.graphs))])
    return 0


if __name__ == "__main__":
    sys.exit(main())
