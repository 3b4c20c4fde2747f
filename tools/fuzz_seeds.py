#!/usr/bin/env python3
"""Writes small sound inputs for a fuzz target: fuzz_seeds.py TARGET FOLDER. Exits with 69 where a module is missing."""
import argparse
import json
import os
import struct
import sys

MANIFEST = {"formatVersion": 1, "features": ["byte-planes"], "tool": {"name": "t", "version": "1"}, "libzstd": "1", "options": {},
            "settings": [], "selections": [], "leftOut": [], "graphs": [], "tensors": []}


def package():
    """Parts of packages, as fuzz-package puts them together."""
    def tensor(name, shape, data_type="F32", stored=None, **more):
        return {"name": name, "dataType": data_type, "storedType": stored or data_type, "shape": shape} | more

    def mapped(*tensors):
        return MANIFEST | {"features": ["byte-planes", "mapped"], "tensors": tensors}

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
    value = {"dataType": "F32", "shape": ["2*batch+1", 2]}
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
    yield parts(4, MANIFEST | {"features": ["byte-planes", "half-byte-planes"], "tensors": [tensor("q", [3, 3], "I8")]}, bytes(9))
    yield parts(4, MANIFEST | {"tensors": [tensor("w", [1, 2])], "graphs": [graph]}, bytes(8))
    yield parts(12, mapped(tensor("r", [5], mapped={"order": "rows"})), bytes(20))
    yield parts(12, mapped(tensor("p", [2, 3], mapped={"order": "panels"})), bytes(384))
    yield parts(12, mapped(tensor("s", [2, 2]), tensor("q", [2, 5], "I8", mapped={"order": "panels", "group": 4, "scales": "s"})),
                bytes(16), bytes(768))
    yield parts(1, two, b"\x28\xb5\x2f\xfd\x20\x0c\x61\x00\x00" + bytes(12), b"\x28\xb5\x2f\xfd\x20\x08\x41\x00\x00" + bytes(8))


def safetensors_file():
    import numpy
    from safetensors.numpy import save

    tensors = {"a": numpy.arange(6, dtype="f4").reshape(2, 3), "b": numpy.zeros(0, "i8"), "c": numpy.ones((), "f2")}
    return save(tensors, {"heads": "4"})


def behind_length(part, rest):
    return struct.pack("<H", len(part)) + part + rest


def safetensors():
    file = safetensors_file()
    yield b"\0" + file
    index = {"metadata": {"total_size": 26}, "weight_map": dict.fromkeys("abc", "a.safetensors")}
    yield b"\1" + behind_length(json.dumps(index).encode(), file)


def torch_files():
    """What torch.save writes, as an archive and in the older form."""
    import io

    import torch

    state = {"model": {"a.weight": torch.ones(2, 3), "a.bias": torch.zeros(3).half()}, "epoch": 3, "args": [1.5, None, ("x",)]}
    for legacy in (False, True):
        file = io.BytesIO()
        torch.save(state, file, _use_new_zipfile_serialization=not legacy)
        yield file.getvalue()


def pickle():
    import io
    import zipfile
    from collections import OrderedDict

    import torch

    weight = torch.arange(12).reshape(3, 4).float()
    for state in ({"a": weight, "b": weight.t(), "c": weight[1]}, OrderedDict(a=torch.nn.Parameter(weight)),
                  {"state_dict": {"a": weight.bool()}, "args": [(1, 2.5, None, True), {"x": "y"}, 1 << 40, {3}]}):
        file = io.BytesIO()
        torch.save(state, file)
        archive = zipfile.ZipFile(file)
        yield behind_length(archive.read("archive/data.pkl"), archive.read("archive/data/0"))


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
    yield helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    nodes = [helper.make_node("Conv", ["x", "k"], ["c"], strides=[2, 2], pads=[0, 0, 0, 0]),
             helper.make_node("Shape", ["c"], ["n"]), helper.make_node("Gather", ["n", "i"], ["b"]),
             helper.make_node("Unsqueeze", ["b", "i1"], ["b1"]), helper.make_node("ConstantOfShape", ["b1"], ["z"])]
    kernel = numpy_helper.from_array(numpy.ones((2, 3, 2, 2), "f4"), "k")
    indices = [numpy_helper.from_array(numpy.array(0, "i8"), "i"), numpy_helper.from_array(numpy.array([0], "i8"), "i1")]
    graph = helper.make_graph(nodes, "main", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
                              [helper.make_tensor_value_info("z", TensorProto.FLOAT, [1])], [kernel, *indices])
    yield helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=7).SerializeToString()
    yield attention()


def attention():
    """A model of LayerNorm, attention under a mask of Booleans, and GELU, in their parts."""
    import numpy
    from onnx import TensorProto, helper, numpy_helper

    constants = {"w": numpy.ones((4, 4), "f4"), "row": numpy.ones(4, "f4"), "split": numpy.array([0, 0, 2, 2]), "joined": numpy.array([0, 0, 4]),
                 "axes": numpy.array([1, 2]), "last": numpy.array([-1]), "two": numpy.array(2, "f4"), "half": numpy.array(0.5, "f4"), "one": numpy.array(1, "f4"),
                 "zero": numpy.array(0, "f4"), "hidden": numpy.array(-numpy.inf, "f4"), "small": numpy.array(1e-5, "f4"), "root": numpy.array(2 ** 0.5, "f4")}
    nodes, made = [], 0

    def node(kind, *inputs, **attributes):
        nonlocal made
        made += 1
        nodes.append(helper.make_node(kind, inputs, [f"v{made}"], **attributes))
        return f"v{made}"

    def heads(x, order):
        return node("Transpose", node("Reshape", node("Add", node("MatMul", x, "w"), "row"), "split"), perm=order)

    centred = node("Sub", "x", node("ReduceMean", "x", axes=[-1]))
    spread = node("Sqrt", node("Add", node("ReduceMean", node("Pow", centred, "two"), axes=[-1]), "small"))
    normed = node("Add", node("Mul", node("Div", centred, spread), "row"), "row")
    shown = node("Where", node("Unsqueeze", node("Cast", "mask", to=TensorProto.BOOL), "axes"), "zero", "hidden")
    scores = node("Add", node("Div", node("MatMul", heads(normed, [0, 2, 1, 3]), heads(normed, [0, 2, 3, 1])), "root"), shown)
    weights = node("Softmax", scores, axis=-1)
    weights = node("Where", node("IsNaN", weights), "zero", weights)
    mixed = node("Transpose", node("MatMul", weights, heads(normed, [0, 2, 1, 3])), perm=[0, 2, 1, 3])
    state = node("Add", "x", node("MatMul", node("Reshape", mixed, "joined"), "w"))
    inner = node("Add", node("MatMul", state, "w"), "row")
    bent = node("Mul", node("Mul", inner, node("Add", node("Erf", node("Div", inner, "root")), "one")), "half")
    nodes.append(helper.make_node("Add", [state, bent], ["y"]))
    graph = helper.make_graph(
        nodes, "main", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "length", 4]),
                        helper.make_tensor_value_info("mask", TensorProto.INT64, ["batch", "length"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "length", 4])],
        [numpy_helper.from_array(numpy.asarray(value), name) for name, value in constants.items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def external_data():
    from onnx import TensorProto, helper

    def tensor(name, shape, data_type, **entries):
        made = TensorProto(name=name, dims=shape, data_type=data_type, data_location=TensorProto.EXTERNAL)
        for key, value in entries.items():
            made.external_data.add(key=key, value=value)
        return made

    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Add", ["h", "b"], ["y"])]
    weights = [tensor("w", [3, 4], TensorProto.FLOAT, location="w.bin", offset="16", length="48"),
               tensor("b", [4], TensorProto.FLOAT, location="w.bin")]
    graph = helper.make_graph(nodes, "main", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    yield behind_length(model.SerializeToString(), bytes(64))


def test_data():
    import numpy
    from onnx import TensorProto, helper, numpy_helper

    for array in (numpy.arange(4, dtype="i8"), numpy.ones((1, 2), "f4"), numpy.ones(3, "?")):
        yield numpy_helper.from_array(array, "t").SerializeToString()
    yield helper.make_tensor("t", TensorProto.FLOAT, [2], [1.5, 2.5]).SerializeToString()
    yield helper.make_tensor("t", TensorProto.INT8, [2], [-1, 2]).SerializeToString()


def golden():
    import io

    import numpy

    for save in (numpy.savez, numpy.savez_compressed):
        file = io.BytesIO()
        save(file, **{"in.x": numpy.arange(6, dtype="f4").reshape(2, 3), "out.y": numpy.ones(3, "i8"), "mid.z": numpy.ones(1, "?")})
        yield b"\0" + file.getvalue()
    for array in (numpy.arange(6, dtype=">f4").reshape(2, 3), numpy.asfortranarray(numpy.ones((2, 3), "i2"))):
        file = io.BytesIO()
        numpy.save(file, array)
        yield b"\2" + file.getvalue()
    yield b"\1" + safetensors_file().replace(b'"a"', b'"out.y"').replace(b"    ", b"", 1)


SEEDS = {"package": package, "safetensors": safetensors, "torch": torch_files, "pickle": pickle, "onnx": onnx,
         "external-data": external_data, "test-data": test_data, "golden": golden}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=SEEDS)
    parser.add_argument("folder")
    options = parser.parse_args()
    try:
        seeds = list(SEEDS[options.target]())
    except ModuleNotFoundError as error:
        print(f"{options.target}: {error}", file=sys.stderr)
        sys.exit(69)
    for number, seed in enumerate(seeds):
        with open(os.path.join(options.folder, f"seed-{number}"), "wb") as file:
            file.write(seed)


if __name__ == "__main__":
    main()
