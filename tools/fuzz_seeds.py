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


SEEDS = {"package": package}


def main():
    target, folder = sys.argv[1:3]
    for number, seed in enumerate(SEEDS[target]()):
        with open(os.path.join(folder, f"seed-{number}"), "wb") as file:
            file.write(seed)


if __name__ == "__main__":
    main()
