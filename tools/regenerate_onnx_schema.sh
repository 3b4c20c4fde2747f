#!/bin/sh
# Makes Sources/OnnxSchema from formats/onnx.proto. Needs protoc-c (Debian: protobuf-c-compiler).
set -eu
cd "$(dirname "$0")/.."
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
protoc-c --proto_path=formats --c_out="$made" onnx.proto
rm -f Sources/OnnxSchema/*.c Sources/OnnxSchema/include/*.h
mv "$made/onnx.pb-c.c" Sources/OnnxSchema/
mv "$made/onnx.pb-c.h" Sources/OnnxSchema/include/
