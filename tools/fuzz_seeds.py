#!/usr/bin/env python3
"""Writes small sound inputs for a fuzz target: fuzz_seeds.py TARGET FOLDER."""
import json
import os
import struct
import sys

MANIFEST = {"formatVersion": 1, "features": ["byte-planes"], "tool": {"name": "t", "version": "1"}, "libzstd": "1", "options": {},
            "settings": [], "selections": [], "leftOut": [], "graphs": [], "tensors": []}


def package():
    """Parts of packages, as fuzz-package puts them together."""
    def tensor(name, shape, data_type="F32", stored=None):
        return {"name": name, "dataType": data_type, "storedType": stored or data_type, "shape": shape}

    def parts(kind, manifest, *chunks):
        text = json.dumps(manifest, separators=(",", ":")).encode()
        if kind & 2:
            text = plain(manifest)
        return bytes([kind]) + b"".join(struct.pack("<H", len(part)) + part for part in (text, *chunks))

    def plain(manifest):
        offset, header = 0, {"__metadata__": {"trips": json.dumps(manifest | {"features": []})}}
        for entry in manifest["tensors"]:
            size = 4 * entry["shape"][0]
            header[entry["name"]] = {"dtype": "F32", "shape": entry["shape"], "data_offsets": [offset, offset + size]}
            offset += size
        text = json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text

    two = MANIFEST | {"tensors": [tensor("a", [3]), tensor("b", [2, 1])]}
    value = {"dataType": "F32", "shape": ["2*batch + 1", 2]}
    graph = {"name": "main", "inputs": [{"name": "x", "type": value}], "traces": [{"name": "vision.1", "value": "y"}],
             "constants": [{"name": "w", "type": {"dataType": "F32", "shape": [1, 2]}, "tensor": "w"},
                           {"name": "s", "type": {"dataType": "I64", "shape": [1]}, "sizes": ["batch"]},
                           {"name": "m", "type": value, "splat": 0.5}],
             "nodes": [{"name": "n", "op": {"name": "Linear", "attributes": {}}, "inputs": ["x", "w", None], "outputs": ["y"]}],
             "outputs": [{"name": "y", "value": "y"}]}
    yield parts(4, MANIFEST)
    yield parts(4, two, bytes(12), bytes(range(8)))
    yield parts(6, MANIFEST | {"tensors": [tensor("a", [3])]}, bytes(12))
    yield parts(4, MANIFEST | {"tensors": [tensor("h", [4], stored="BF16"), tensor("i", [2], "I8")]}, bytes(8), bytes(2))
    yield parts(4, MANIFEST | {"tensors": [tensor("w", [1, 2])], "graphs": [graph]}, bytes(8))
    yield parts(1, two, b"\x28\xb5\x2f\xfd\x20\x0c\x61\x00\x00" + bytes(12), b"\x28\xb5\x2f\xfd\x20\x08\x41\x00\x00" + bytes(8))


def safetensors_file():
    import numpy
    from safetensors.numpy import save

    tensors = {"a": numpy.arange(6, dtype="f4").reshape(2, 3), "b": numpy.zeros(0, "i8"), "c": numpy.ones((), "f2")}
    return save(tensors, {"heads": "4"})


def checkpoint():
    import io

    import torch

    yield b"\0" + safetensors_file()
    state = {"model": {"a.weight": torch.ones(2, 3), "a.bias": torch.zeros(3).half()}, "epoch": 3, "args": [1.5, None, ("x",)]}
    for legacy in (False, True):
        file = io.BytesIO()
        torch.save(state, file, _use_new_zipfile_serialization=not legacy)
        yield b"\1" + file.getvalue()
    yield b"\2" + json.dumps({"metadata": {"total_size": 24}, "weight_map": {"a": "a.safetensors"}}).encode()


def onnx():
    import numpy
    from onnx import TensorProto, helper, numpy_helper

    weight = numpy_helper.from_array(numpy.ones((4, 3), "f4"), "w")
    shape = numpy_helper.from_array(numpy.array([-1, 2, 2], "i8"), "shape")
    nodes = [helper.make_node("MatMul", ["x", "w0"], ["h"]), helper.make_node("Add", ["h", "h"], ["g"]),
             helper.make_node("Softmax", ["g"], ["s"], axis=-1), helper.make_node("Reshape", ["s", "shape"], ["y"]),
             helper.make_node("Transpose", ["w"], ["w0"], perm=[1, 0])]
    graph = helper.make_graph(nodes, "main", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2, 2])], [weight, shape])
    yield b"\0" + helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    nodes = [helper.make_node("Conv", ["x", "k"], ["c"], strides=[2, 2], pads=[0, 0, 0, 0]),
             helper.make_node("Shape", ["c"], ["n"]), helper.make_node("Gather", ["n", "i"], ["b"]),
             helper.make_node("Unsqueeze", ["b", "i1"], ["b1"]), helper.make_node("ConstantOfShape", ["b1"], ["z"])]
    kernel = numpy_helper.from_array(numpy.ones((2, 3, 2, 2), "f4"), "k")
    indices = [numpy_helper.from_array(numpy.array(0, "i8"), "i"), numpy_helper.from_array(numpy.array([0], "i8"), "i1")]
    graph = helper.make_graph(nodes, "main", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
                              [helper.make_tensor_value_info("z", TensorProto.FLOAT, [1])], [kernel, *indices])
    yield b"\0" + helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=7).SerializeToString()
    for array in (numpy.arange(4, dtype="i8"), numpy.ones((1, 2), "f4")):
        yield b"\1" + numpy_helper.from_array(array, "t").SerializeToString()


def golden():
    import io

    import numpy

    for save in (numpy.savez, numpy.savez_compressed):
        file = io.BytesIO()
        save(file, **{"in.x": numpy.arange(6, dtype="f4").reshape(2, 3), "out.y": numpy.ones(3, "i8"), "mid.z": numpy.ones(1, "?")})
        yield b"\0" + file.getvalue()
    yield b"\1" + safetensors_file().replace(b'"a"', b'"out.y"').replace(b"    ", b"", 1)


SEEDS = {"package": package, "checkpoint": checkpoint, "onnx": onnx, "golden": golden}


def main():
    target, folder = sys.argv[1:3]
    for number, seed in enumerate(SEEDS[target]()):
        with open(os.path.join(folder, f"seed-{number}"), "wb") as file:
            file.write(seed)


if __name__ == "__main__":
    main()
