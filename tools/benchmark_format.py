#!/usr/bin/env python3
"""Sizes and speeds of .trips beside safetensors, safetensors with zstd, and ZipNN, on one model's weights.

    benchmark_format.py MODEL.safetensors [--folder FOLDER]

The weights are stored as fp32, bf16, fp16, and int8 (matrices, a scale for each row). Speeds are bytes of weights per
second of processor time, so they are those of one core; each is the best of five. Files go to FOLDER: put it into
memory (/dev/shm) to leave the disk out. Needs torch, safetensors, zstandard and, for its column, zipnn.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

import torch
import zstandard
from safetensors.torch import load_file, save_file

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD = os.path.join(ROOT, ".build", "development")


def int8(tensor):
    if tensor.dim() < 2:
        return tensor
    scale = tensor.float().abs().amax(tuple(range(1, tensor.dim())), keepdim=True).clamp(min=1e-30) / 127
    return (tensor / scale).round().to(torch.int8)


TYPES = {"fp32": torch.Tensor.float, "bf16": torch.Tensor.bfloat16, "fp16": torch.Tensor.half, "int8": int8}


def cost(body):
    best = float("inf")
    for _ in range(5):
        start = time.process_time()
        result = body()
        best = min(best, time.process_time() - start)
    return result, best


def trips(path, folder):
    tool = os.path.join(BUILD, "release", "benchmark-format")
    # Sizes of the run with one thread; times of all threads together are those of one core.
    figures = json.loads(subprocess.check_output([tool, path, folder, "1"]))
    return figures["size"], figures["write"]["processor"], figures["read"]["processor"]


def safetensors(path, folder):
    tensors, copy = load_file(path), os.path.join(folder, "benchmark.safetensors")
    _, write = cost(lambda: save_file(tensors, copy))
    _, read = cost(lambda: {name: tensor.clone() for name, tensor in load_file(copy).items()})
    size = os.path.getsize(copy)
    os.remove(copy)
    return size, write, read


def compressed(path, folder, compress, decompress):
    """A whole safetensors file, compressed and decompressed in one piece."""
    data, copy = open(path, "rb").read(), os.path.join(folder, "benchmark.compressed")

    def write():
        with open(copy, "wb") as file:
            file.write(compress(data))

    _, write_time = cost(write)
    result, read_time = cost(lambda: decompress(open(copy, "rb").read()))
    assert bytes(result) == data
    size = os.path.getsize(copy)
    os.remove(copy)
    return size, write_time, read_time


def zstd(path, folder):
    return compressed(path, folder, zstandard.ZstdCompressor(level=3).compress, zstandard.ZstdDecompressor().decompress)


def zipnn(path, folder, kind):
    from zipnn import ZipNN

    name = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}[kind]
    coder = ZipNN(input_format="byte", bytearray_dtype=name, threads=1)
    # ZipNN changes what it is given.
    return compressed(path, folder, lambda data: coder.compress(bytearray(data)), coder.decompress)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--folder", default="/dev/shm" if os.path.isdir("/dev/shm") else None)
    options = parser.parse_args()
    torch.set_num_threads(1)
    subprocess.run(["swift", "build", "-c", "release", "--scratch-path", BUILD, "--product", "benchmark-format"], cwd=ROOT,
                   env=os.environ | {"TRIPS_DEVELOPMENT": "1"}, check=True, stdout=subprocess.DEVNULL)
    weights = load_file(options.model)
    print("| weights | format | size | of raw | write MB/s | read MB/s |\n|---|---|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = os.path.join(folder, "weights.safetensors")
        for kind, convert in TYPES.items():
            save_file({name: convert(tensor).contiguous() if tensor.is_floating_point() else tensor
                       for name, tensor in weights.items()}, path)
            raw = os.path.getsize(path)
            formats = {"safetensors": safetensors, "safetensors + zstd -3": zstd,
                       "ZipNN": lambda path, folder: zipnn(path, folder, kind), "trips": trips}
            for name, measure in formats.items():
                try:
                    size, write, read = measure(path, folder)
                except (ImportError, KeyError):
                    print(f"{name} skipped for {kind}", file=sys.stderr)
                    continue
                print(f"| {kind} | {name} | {size / 1e6:.1f} MB | {size / raw:.4f} | {raw / write / 1e6:.0f} | {raw / read / 1e6:.0f} |", flush=True)


if __name__ == "__main__":
    main()
