#!/bin/sh
# Makes the virtual environment that the Python tools run in.
#
#   tools/python-environment.sh [FOLDER]      default: .venv beside the package, which git ignores
#
# then:  .venv/bin/python tools/reference/make.py --help
set -eu
here=$(cd "$(dirname "$0")" && pwd)
folder=${1:-"$here/../.venv"}
${PYTHON:-python3} -m venv "$folder"
"$folder/bin/pip" install --quiet --disable-pip-version-check --requirement "$here/requirements.txt"
"$folder/bin/python" -c 'import sys, torch, onnx, onnxruntime; print(sys.prefix, "torch", torch.__version__, "onnx", onnx.__version__, "onnxruntime", onnxruntime.__version__)'
