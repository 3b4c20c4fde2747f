#!/usr/bin/env python3
"""Reads .trips packages with zstandard and numpy alone, after formats/trips-package.md.

    read_trips.py MODEL.trips                      the tensors: names, types, shapes, sizes
    read_trips.py MODEL.trips --manifest           the whole manifest
    read_trips.py MODEL.trips --save OUT.npz       all tensors (bfloat16 as float32)
    read_trips.py MODEL.trips --digests            SHA-256 of each tensor's stored numbers

With --verify every byte is checked first; what is saved or digested is checked in any case.
"""
import argparse
import hashlib
import json
import struct
import sys
import zlib

import numpy
import zstandard

CHUNK = 524288
SKIPPABLE = 0x184D2A54
WIDTHS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1,
          "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1}
NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
         "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?"}
FEATURES = {"byte-planes", "half-byte-planes", "mapped"}
PANEL = 32


class PackageError(Exception):
    pass


def require(condition, message):
    if not condition:
        raise PackageError(message)


def unseal(data, magic):
    """The fields of a checked skippable frame."""
    require(len(data) >= 20, f"{magic}: too short")
    frame, size = struct.unpack_from("<II", data)
    require(frame == SKIPPABLE and data[8:16] == magic, f"{magic}: no such frame")
    require(size == len(data) - 8, f"{magic}: frame size {size}")
    require(struct.unpack("<I", data[-4:])[0] == zlib.crc32(data[:-4]), f"{magic}: wrong checksum")
    return data[16:-4]


def unique(pairs):
    require(len({key for key, _ in pairs}) == len(pairs), "a key stands twice in the manifest")
    return dict(pairs)


def decompress(frames, size):
    """What all frames hold, which must be `size` bytes, and the number of frames.

    It is taken in pieces of 1 KB, which hold 32 MB at most: frames that hold far too much are not decompressed whole.
    """
    out, frame, count, start = bytearray(), None, 0, 0
    while start < len(frames):
        if frame is None:
            header = zstandard.get_frame_parameters(frames[start:start + 18])
            require(header.has_checksum and header.content_size != zstandard.CONTENTSIZE_UNKNOWN and not header.dict_id,
                    "a frame without checksum or size, or with a dictionary")
            frame, count = zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj(), count + 1
        piece = frames[start:start + 1024]
        out += frame.decompress(piece)
        require(len(out) <= size, f"more than {size} bytes after decompression")
        start += len(piece)
        if frame.eof:
            start, frame = start - len(frame.unused_data), None
    require(frame is None, "a frame that is cut off")
    require(len(out) == size, f"{len(out)} bytes after decompression instead of {size}")
    return bytes(out), count


class Package:
    def __init__(self, path):
        self.file = open(path, "rb")
        size = self.file.seek(0, 2)
        require(size >= 108, "too short for a package")
        header = unseal(self.read(0, 40), b"TRIPSPKG")
        version, flags, frame_size, manifest_size, checksum, reserved = struct.unpack("<HHIIII", header)
        require(version == 1, f"version {version}")
        require(flags & ~1 == 0 and reserved == 0, "reserved bits are set")
        require(manifest_size <= 1 << 24 and manifest_size < 256 * (frame_size + 1), "manifest size")
        self.plain = flags & 1 == 1

        footer = unseal(self.read(size - 40, 40), b"TRIPSEND")
        index_offset, file_size, reserved = struct.unpack("<QQI", footer)
        require(file_size == size and reserved == 0, "file size")
        require(40 + frame_size <= index_offset <= size - 40 - 28, "index offset")
        index = unseal(self.read(index_offset, size - 40 - index_offset), b"TRIPSIDX")
        count, reserved = struct.unpack_from("<II", index)
        require(len(index) == 8 + 8 * count and reserved == 0, "number of chunks")
        self.sizes, self.checksums = numpy.frombuffer(index, "<u4", offset=8).reshape(-1, 2).T.astype(numpy.int64)
        self.offsets = 40 + frame_size + numpy.concatenate([[0], numpy.cumsum(self.sizes)])
        require(self.offsets[-1] == index_offset, "the chunks do not fill the place before the index")

        frame = self.read(40, frame_size)
        require(zlib.crc32(frame) == checksum, "manifest: wrong checksum")
        text, frames = decompress(frame, manifest_size)
        require(frames == 1, f"manifest: {frames} frames")
        entries = {}
        if self.plain:
            require(len(text) >= 8 and struct.unpack_from("<Q", text)[0] == len(text) - 8, "safetensors header")
            entries = json.loads(text[8:], object_pairs_hook=unique)
            text = entries.pop("__metadata__")["trips"]
        self.manifest = json.loads(text, object_pairs_hook=unique)
        require(self.manifest["formatVersion"] == version, "version")
        unknown = set(self.manifest["features"]) - FEATURES
        require(not unknown, f"required, but not known here: {', '.join(sorted(unknown))}")
        require(self.plain != ("byte-planes" in self.manifest["features"]), "features unlike the header's")
        require(not self.plain or not self.manifest["features"], "features unlike the header's")

        self.tensors, first, offset = {}, 0, 0
        for record in self.manifest["tensors"]:
            elements = 1
            for dimension in record["shape"]:
                require(isinstance(dimension, int) and dimension >= 0, "shape")
                elements *= dimension
            byte_count = elements * WIDTHS[record["storedType"]]
            if record.get("mapped"):
                require("mapped" in self.manifest["features"], "mapped tensors, and no such feature")
                require(record["storedType"] == record["dataType"] != "BOOL", "type of a mapped tensor")
                last = first + 1
            else:
                last = first + -(-byte_count // CHUNK)
            require(record["name"] not in self.tensors and last <= count, "tensors")
            self.tensors[record["name"]] = (record, byte_count, range(first, last))
            if self.plain:
                entry = {"dtype": record["storedType"], "shape": record["shape"], "data_offsets": [offset, offset + byte_count]}
                require(entries.pop(record["name"], None) == entry, f"{record['name']}: unlike the safetensors header")
            first, offset = last, offset + byte_count
        require(not entries, "the safetensors header lists other tensors")
        require(first == count, "more chunks than the tensors take")
        for record, _, _ in self.tensors.values():
            self.check_panels(record)

    def read(self, offset, count):
        self.file.seek(offset)
        data = self.file.read(count)
        require(len(data) == count, "the file ends too early")
        return data

    def check_panels(self, record):
        mapped = record.get("mapped")
        if not mapped:
            return
        order, group, scales = mapped["order"], mapped.get("group"), mapped.get("scales")
        require(order in ("rows", "panels"), f"order {order}")
        if order == "rows":
            return
        shape = record["shape"]
        require(len(shape) == 2 and min(shape) > 0, "panels of something that is no matrix")
        if record["storedType"] == "F32":
            require(group is None and scales is None, "groups of F32")
            return
        require(record["storedType"] == "I8" and shape[1] <= 65536, "type or width of panels")
        require(isinstance(group, int) and 0 <= group < shape[1] and group % 4 == 0, "groups of panels")
        other, _, _ = self.tensors[scales]
        groups = -(-shape[1] // group) if group else 1
        require(other["dataType"] == "F32" and other["shape"] == [shape[0], groups], "scales of panels")

    def mapped(self, record, byte_count, number, check):
        """The numbers of a mapped tensor, in rows."""
        mapped, shape, offset = record["mapped"], record["shape"], int(self.offsets[number])
        panels = mapped["order"] == "panels"
        rows, width = (-(-shape[0] // PANEL) * PANEL, shape[1]) if panels else (0, 0)
        filled, group = -(-width // 4) * 4, mapped.get("group") or width
        groups = -(-width // group) if panels else 0
        int8 = panels and record["storedType"] == "I8"
        size = byte_count if not panels else rows * (filled + 8 * groups) if int8 else rows * width * 4
        padding = -(offset + 8) % 64
        require(self.sizes[number] == 8 + padding + size, f"size of chunk {number}")
        frame = self.read(offset, 8 + padding + size)
        require(not check or zlib.crc32(frame) == self.checksums[number], f"chunk {number}: wrong checksum")
        require(frame[:8 + padding] == struct.pack("<II", SKIPPABLE, padding + size) + bytes(padding), f"chunk {number}: frame")
        data = frame[8 + padding:]
        if not panels:
            return data
        if not int8:
            return numpy.frombuffer(data, "<u4").reshape(-1, width, PANEL).transpose(0, 2, 1).reshape(rows, width)[:shape[0]].tobytes()
        numbers, at = numpy.empty((rows, filled), "i1"), 0
        scales = self.tensor(mapped["scales"], check)
        for panel in range(0, rows, PANEL):
            for number, start in enumerate(range(0, width, group)):
                length = min(group, width - start, filled - start)
                length = -(-length // 4) * 4
                part = numpy.frombuffer(data, "i1", length * PANEL, at).reshape(length // 4, PANEL, 4)
                part = part.transpose(1, 0, 2).reshape(PANEL, length)
                numbers[panel:panel + PANEL, start:start + length] = part
                at += length * PANEL
                corrections, own = numpy.frombuffer(data, "<i4", PANEL, at), numpy.frombuffer(data, "<f4", PANEL, at + 128)
                at += 256
                require((corrections == -128 * part.sum(1, dtype="i4")).all(), "corrections of panels")
                given = scales[panel:panel + PANEL, number]
                require((own[:len(given)].view("<u4") == numpy.ascontiguousarray(given).view("<u4")).all(), "scales of panels")
        return numbers[:shape[0], :width].tobytes()

    def chunk(self, number, size, stored, check=False):
        """A chunk's elements, as bytes."""
        require(size // 32768 <= self.sizes[number] <= 1 << 20, f"size of chunk {number}")
        frames = self.read(self.offsets[number], int(self.sizes[number]))
        require(not check or zlib.crc32(frames) == self.checksums[number], f"chunk {number}: wrong checksum")
        data, _ = decompress(frames, size)
        require(stored != "BOOL" or max(data, default=0) <= 1, f"chunk {number}: a boolean that is neither 0 nor 1")
        width = WIDTHS[stored]
        if self.plain or width == 1 and (stored != "I8" or "half-byte-planes" not in self.manifest["features"]):
            return data
        if width == 1:
            half = size // 2
            low, high = numpy.frombuffer(data, "u1", 2 * half).reshape(2, half)
            return ((low & 15) | (high << 4)).tobytes() + ((low >> 4) | (high & 240)).tobytes() + data[2 * half:]
        planes = numpy.frombuffer(data, "u1").reshape(width, size // width)
        words = numpy.ascontiguousarray(planes.T).view(f"<u{width}").ravel()
        if stored[0] in "FB":
            words = (words >> 1) | (words << (8 * width - 1))
        return words.tobytes()

    def tensor(self, name, check=False):
        """A tensor in its stored type; bfloat16 as float32."""
        record, byte_count, chunks = self.tensors[name]
        stored = record["storedType"]
        if record.get("mapped"):
            data = self.mapped(record, byte_count, chunks[0], check)
        else:
            data = b"".join(
                self.chunk(number, min(CHUNK, byte_count - place * CHUNK), stored, check)
                for place, number in enumerate(chunks))
        if stored == "BF16":
            return (numpy.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4").reshape(record["shape"])
        return numpy.frombuffer(data, NUMPY[stored]).reshape(record["shape"])


def main():
    parser = argparse.ArgumentParser(description="Reads .trips packages.")
    parser.add_argument("model")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--manifest", action="store_true", help="print the whole manifest")
    what.add_argument("--save", metavar="OUT.npz", help="save all tensors")
    what.add_argument("--digests", action="store_true", help="print the SHA-256 of each tensor's stored numbers")
    parser.add_argument("--verify", action="store_true", help="check every byte first")
    options = parser.parse_args()
    try:
        package = Package(options.model)
        if options.verify:
            for name in package.tensors:
                package.tensor(name, check=True)
        if options.manifest:
            json.dump(package.manifest, sys.stdout, indent=2, ensure_ascii=False)
            print()
        elif options.save:
            numpy.savez(options.save, **{name: package.tensor(name, check=True) for name in package.tensors})
        elif options.digests:
            digests = {}
            for name, (record, _, _) in package.tensors.items():
                numbers = package.tensor(name, check=True)
                if record["storedType"] == "BF16":
                    numbers = (numbers.view("<u4") >> 16).astype("<u2")
                digests[name] = hashlib.sha256(numbers.tobytes()).hexdigest()
            json.dump(digests, sys.stdout)
        else:
            for name, (record, byte_count, chunks) in package.tensors.items():
                size = sum(package.sizes[number] for number in chunks)
                print(f"{name}  {record['storedType']} {record['shape']}  {byte_count} bytes, {size} in the file")
    except (PackageError, OSError, zstandard.ZstdError, KeyError, TypeError, ValueError) as error:
        sys.exit(f"{options.model}: {error}")


if __name__ == "__main__":
    main()
