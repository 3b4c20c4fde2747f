"""Writing what a model is and what it computes: checkpoints, ONNX files, goldens."""

import json
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn

import generation
import weights

PAD = 0


# Inputs


def picture(config, seed: int, batch: int = 1) -> torch.Tensor:
    """Smooth shapes under noise, normalised: neighbouring patches resemble each other as in photographs."""
    generator = weights.generator("image", seed)
    coarse = torch.randn(batch, 3, 4, 4, generator=generator)
    smooth = nn.functional.interpolate(coarse, (config.image_size, config.image_size), mode="bicubic")
    return smooth + 0.5 * torch.randn(smooth.shape, generator=generator)


def sentence(config, seed: int, length: int, batch: int = 1, name: str = "text", full: bool = False):
    """Ids and mask [batch, length]: start token, words, end token, padding (none of it in row 0 if `full`)."""
    generator = weights.generator(name, seed)
    first_word = config.end_id + 1
    ids = torch.randint(first_word, config.vocabulary, (batch, length), generator=generator)
    mask = torch.zeros_like(ids)
    for row in range(batch):
        shortest = max(3, length // 2)
        words = length if full and row == 0 else int(torch.randint(shortest, length + 1, (), generator=generator))
        ids[row, 0], ids[row, words - 1], ids[row, words:] = config.start_id, config.end_id, PAD
        mask[row, :words] = 1
    return ids, mask


def inputs_for(model, seed: int, text_length: int = 12, batch: int = 1, full: bool = False) -> dict:
    """Inputs from outside, by name, for all graphs of a model."""
    config = model.config
    names = {name for inputs, _ in model.graphs.values() for name in inputs}
    inputs = {name: picture(config, seed * 2 + (name == "image1"), batch)
              for name in ("image", "image0", "image1") if name in names}
    if "input_ids" in names:
        inputs["input_ids"], inputs["attention_mask"] = sentence(config, seed, text_length, batch, full=full)
    if "answer_ids" in names:
        inputs["answer_ids"], inputs["answer_mask"] = sentence(config, seed, 5, batch, "answer")
    if "decoder_ids" in names:
        first = config.prefix_id if config.architecture == "mplug-grounding" else config.start_id
        inputs["decoder_ids"] = sentence(config, seed, 4, batch, "decoder")[0]
        inputs["decoder_ids"][:, 0] = first
    return inputs


def run_all(model, inputs: dict, trace: dict | None = None) -> dict:
    """All graphs in order, the outputs of one feeding the next; every output by name."""
    known, outputs = dict(inputs), {}
    with torch.no_grad():
        for graph in model.graphs:
            results = model.run(graph, known, trace)
            known |= results
            outputs |= results
    return outputs


# Checkpoints


SAFETENSORS_TYPES = {torch.float32: "F32", torch.float64: "F64", torch.float16: "F16", torch.bfloat16: "BF16",
                     torch.int64: "I64", torch.int32: "I32", torch.uint8: "U8", torch.bool: "BOOL"}


def save_file(tensors: dict, path: Path, metadata: dict[str, str]) -> None:
    """A safetensors file in which even the metadata has a fixed order, so that the same model gives the same bytes."""
    header: dict = {"__metadata__": dict(sorted(metadata.items()))}
    offset = 0
    for name, tensor in tensors.items():
        end = offset + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": SAFETENSORS_TYPES[tensor.dtype], "shape": list(tensor.shape),
                        "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            file.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())


def write_shards(model, folder: Path, dtype: torch.dtype) -> None:
    """A state in two safetensors files and the index that names them, its floating-point tensors in another type."""
    state = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor
             for name, tensor in weights.used_state(model).items()}
    folder.mkdir(parents=True, exist_ok=True)
    names, places = list(state), {}
    for number, part in enumerate((names[: len(names) // 2], names[len(names) // 2:]), 1):
        file = f"model-{number:05}-of-00002.safetensors"
        save_file({name: state[name] for name in part}, folder / file, model.config.metadata)
        places |= {name: file for name in part}
    size = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(places.items()))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")


def write_checkpoint(model, path: Path, seed: int = 0, unused: bool = False) -> None:
    """A state dict as safetensors, or as torch's own file if the name says so: .pth the zip form, .pt the older."""
    state = weights.released_state(model, seed) if unused else weights.used_state(model)
    if path.suffix == ".safetensors":
        save_file(state, path, metadata=model.config.metadata)
    else:
        torch.save({"model": state}, path, _use_new_zipfile_serialization=path.suffix == ".pth")


# Goldens


def golden(model, inputs: dict, intermediates: bool = True) -> dict:
    """Inputs, outputs and intermediates; without the latter, still what selections kept."""
    trace: dict = {}
    outputs = run_all(model, inputs, trace)
    tensors = {f"in.{name}": value for name, value in inputs.items()}
    tensors |= {f"out.{name}": value for name, value in outputs.items()}
    return tensors | {f"mid.{name}": value for name, value in trace.items()
                      if intermediates or name.startswith("selection.")}


def metadata(model, seed: int, source: str) -> dict[str, str]:
    return model.config.metadata | model.selection.metadata | {"seed": str(seed), "source": source}


def write_golden(path: Path, tensors: dict, facts: dict[str, str]) -> None:
    tensors = {name: value.detach().clone().contiguous() for name, value in tensors.items()}
    if path.suffix == ".npz":
        np.savez(path, **{name: value.numpy() for name, value in tensors.items()})
    else:
        save_file(tensors, path, metadata=facts)


def write_onnx_test_data(folder: Path, tensors: dict, facts: dict[str, str], names: tuple) -> None:
    """ONNX's own layout: test_data_set_0/{input,output}_K.pb, and golden.json beside it."""
    data = folder / "test_data_set_0"
    data.mkdir(parents=True, exist_ok=True)
    for kind, prefix, keys in (("input", "in.", names[0]), ("output", "out.", names[1])):
        for index, key in enumerate(keys):
            tensor = numpy_helper.from_array(tensors[prefix + key].numpy(), key)
            (data / f"{kind}_{index}.pb").write_bytes(tensor.SerializeToString())
    (folder / "golden.json").write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n")


def outside(inputs: dict, names=("image", "input_ids", "attention_mask")) -> dict:
    return {f"in.{name}": inputs[name] for name in names if name in inputs}


def generated(model, inputs: dict, beam: generation.Beam) -> tuple[dict, dict[str, str], list]:
    """A golden of beam search: tensors, metadata, and all finished hypotheses."""
    with torch.no_grad():
        encoded = model.run("encode", inputs)

        def next_logits(prefixes):
            fed = {name: value.expand(len(prefixes), *value.shape[1:]) for name, value in encoded.items()}
            return model.run("decode", fed | {"decoder_ids": prefixes})["next_logits"]

        best, finished = generation.beam_search(next_logits, beam)
    tensors = outside(inputs) | {"out.ids": torch.tensor(best.ids), "out.score": torch.tensor([best.score])}
    return tensors, beam.metadata, finished


def ranked(model, inputs: dict, candidates: int, length: int, k: int, seed: int) -> tuple[dict, dict[str, str]]:
    """A golden of answer ranking among random candidates."""
    ids, mask = sentence(model.config, seed, length, candidates, "candidates")
    with torch.no_grad():
        encoded = model.run("encode", inputs)

        def answer_logits(answer_ids, answer_mask):
            fed = {"question_states": encoded["question_states"], "attention_mask": inputs["attention_mask"]}
            fed = {name: value.expand(len(answer_ids), *value.shape[1:]) for name, value in fed.items()}
            return model.run("decode", fed | {"answer_ids": answer_ids, "answer_mask": answer_mask})["answer_logits"]

        indices, probabilities = generation.rank_answers(answer_logits, ids, mask, k)
    tensors = outside(inputs) | {
        "in.answer_ids": ids, "in.answer_mask": mask, "out.topk_ids": indices[None], "out.topk_probs": probabilities[None]}
    return tensors, {"k": str(k)}


def grounded(model, inputs: dict) -> dict:
    """A golden of the box."""
    with torch.no_grad():
        encoded = model.run("encode", inputs)
        box = generation.ground(
            lambda ids: model.run("decode", encoded | {"decoder_ids": ids})["next_logits"],
            model.prefix_ids, model.target_ids)
    return outside(inputs) | {"out.box": box}


# ONNX


class GraphModule(nn.Module):
    """One graph of a model as a module of positional inputs and outputs, which is what exporters take."""

    def __init__(self, model, graph: str):
        super().__init__()
        self.model, self.graph = model, graph

    def forward(self, *inputs):
        names = self.model.graphs[self.graph][0]
        return tuple(self.model.run(self.graph, dict(zip(names, inputs))).values())


def axes(name: str, rank: int) -> dict[int, str]:
    """The dynamic axes of an input."""
    second = {"input_ids": "text_length", "attention_mask": "text_length", "answer_ids": "answer_length",
              "answer_mask": "answer_length", "decoder_ids": "tokens", "question_states": "text_length",
              "question_output": "states", "question_atts": "states"}
    return {0: "batch"} | ({1: second[name]} if rank > 1 and name in second else {})


def write_onnx(model, graph: str, inputs: dict, path: Path, opset: int = 17, dynamic: bool = False,
               dynamo: bool = False, fold: bool = True) -> None:
    """Exports one graph with torch's TorchScript exporter, or with the newer one (`dynamo`)."""
    names, outputs = model.graphs[graph]
    known = inputs | run_all(model, inputs)
    arguments = tuple(known[name] for name in names)
    dynamic_axes = {name: axes(name, known[name].dim()) for name in names} if dynamic else None
    options: dict = dict(input_names=list(names), output_names=list(outputs), opset_version=opset)
    if dynamo:
        if dynamic:
            options["dynamic_shapes"] = (dynamo_shapes(names, dynamic_axes),)
        options |= dict(dynamo=True, external_data=False, optimize=fold, verbose=False)
    else:
        options |= dict(dynamo=False, do_constant_folding=fold)
        if dynamic:
            options["dynamic_axes"] = dynamic_axes | {name: {0: "batch"} for name in outputs}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(GraphModule(model, graph), arguments, str(path), **options)
    strip_locations(path)


def dynamo_shapes(names, dynamic_axes) -> tuple:
    dimensions = {axis: torch.export.Dim(axis, min=1, max=4096) for name in names for axis in dynamic_axes[name].values()}
    return tuple({axis: dimensions[label] for axis, label in dynamic_axes[name].items()} for name in names)


def strip_locations(path: Path) -> None:
    """Removes what an exporter notes about the machine it ran on: source lines and stack traces."""
    file = onnx.load(path)
    for node in file.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for value in [*file.graph.value_info, *file.graph.input, *file.graph.output, *file.graph.initializer]:
        value.doc_string = ""
        del value.metadata_props[:]
    del file.graph.metadata_props[:]
    del file.metadata_props[:]
    onnx.save(file, path)
