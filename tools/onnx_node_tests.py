"""Sends the node tests of the installed onnx package through trips-convert and trips-verify.

    python tools/onnx_node_tests.py --bin .build/release [--match softmax] [--jobs 2] [--json FILE]

Tests written for opsets below 11 whose operator has not changed since are labelled 11. Each test also runs with the
older versions of its operator, down to opset 11: the model is labelled with the older opset, inputs that used to be
attributes become attributes, and ONNX Runtime computes the expected outputs; what it does not run is left out. Each
test ends as one of

    passed     converted, and every output within tolerance
    constant   passed once the inputs that say sizes (shape, axes, scales, …) were constants, as they are in exports
    refused    exit 64 or 65 with a message: expected of operators and types that are not listed here
    wrong      an output differs
    crashed    any other exit, a signal, or no answer within --timeout seconds

The exit status is 0 when nothing is wrong and nothing crashed.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

OPERATORS = set("""
Add Sub Mul Div Mod Neg Abs Sign Floor Ceil Round Reciprocal Min Max Mean Sum
Equal Less LessOrEqual Greater GreaterOrEqual And Or Not Xor IsNaN IsInf
Erf Exp Log Sqrt Pow Tanh Sigmoid Relu LeakyRelu Elu Gelu Softplus HardSigmoid HardSwish Swish Softmax LogSoftmax
Clip Where Cast CastLike Identity Dropout Sin Cos Constant
Shape Size ConstantOfShape Range Expand Tile Reshape Flatten Squeeze Unsqueeze Transpose Concat Split Slice Pad
DepthToSpace SpaceToDepth EyeLike
Gather GatherElements GatherND ScatterElements ScatterND TopK ArgMax ArgMin CumSum Trilu OneHot NonZero
MatMul Gemm Einsum Conv ConvTranspose MaxPool AveragePool GlobalAveragePool
BatchNormalization LayerNormalization RMSNormalization RotaryEmbedding GroupNormalization InstanceNormalization LpNormalization
Resize Attention QuantizeLinear DequantizeLinear DynamicQuantizeLinear MatMulInteger ConvInteger QLinearMatMul QLinearConv
ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare
""".split())

TYPES = {TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.INT64,
         TensorProto.INT32, TensorProto.BOOL, TensorProto.UINT8, TensorProto.INT8}

OLDEST, NEWEST = 11, 27

SIZE_REFUSAL = "a size depends on the inputs' numbers"

REDUCTIONS = [name for name in OPERATORS if name.startswith("Reduce") and name != "ReduceSum"]
ONCE_ATTRIBUTE = {"Squeeze": (13, "axes"), "Unsqueeze": (13, "axes"), "ReduceSum": (13, "axes"),
                  "Split": (13, "split")} | {name: (18, "axes") for name in REDUCTIONS}
"""Operators whose second input was an attribute before the given opset."""


@dataclass
class Case:
    name: str
    model: onnx.ModelProto
    inputs: list
    outputs: list
    older: bool = False
    verdict: str = ""
    message: str = ""
    operators: list[str] = field(init=False)
    listed: bool = field(init=False)

    def __post_init__(self):
        self.operators = sorted({node.op_type for node in self.model.graph.node})
        self.listed = is_listed(self.model) and all(isinstance(value, np.ndarray) for value in self.inputs + self.outputs)

    @property
    def opset(self) -> int:
        return max((entry.version for entry in self.model.opset_import if entry.domain in ("", "ai.onnx")), default=0)


def is_listed(model: onnx.ModelProto) -> bool:
    """Whether a model holds only operators and types of the lists above, at a supported opset."""
    graph = model.graph
    kinds = {value.type.tensor_type.elem_type for value in [*graph.input, *graph.output]}
    kinds |= {tensor.data_type for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type not in OPERATORS or node.domain not in ("", "ai.onnx"):
            return False
        for attribute in node.attribute:
            if attribute.HasField("g") or attribute.graphs or attribute.HasField("sparse_tensor"):
                return False
            if attribute.HasField("t"):
                kinds.add(attribute.t.data_type)
            if node.op_type == "Cast" and attribute.name == "to":
                kinds.add(attribute.i)
        if node.op_type == "Dropout" and len(node.input) > 2:
            return False
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    return kinds <= TYPES and bool(versions) and max(versions) <= NEWEST


def node_tests() -> list[Case]:
    from onnx.backend.test.loader import load_model_tests
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tests = load_model_tests(kind="node")
    return [Case(test.name, lifted(test.model), list(test.data_sets[0][0]), list(test.data_sets[0][1]))
            for test in tests if test.model is not None and test.data_sets]


def lifted(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model below the oldest supported opset at that opset, if that says the same."""
    own = [entry for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    if not own or own[0].version >= OLDEST:
        return model
    for node in model.graph.node:
        now, then = (onnx.defs.get_schema(node.op_type, version, "").since_version for version in (own[0].version, OLDEST))
        if now != then:
            return model
    own[0].version = OLDEST
    model.ir_version = max(model.ir_version, 4)
    return model


def with_constant_sizes(case: Case) -> Case | None:
    """The same test with every input that can say a size as a constant: vectors and scalars behind an operator's first
    input, and integers wherever they stand."""
    readers = {(name, node.op_type, place) for node in case.model.graph.node for place, name in enumerate(node.input)}
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    kept, inputs = [], []
    for value, array in zip(case.model.graph.input, case.inputs):
        later = any(name == value.name and (place > 0 or kind in ("ConstantOfShape", "Range"))
                    for name, kind, place in readers)
        integer = isinstance(array, np.ndarray) and array.dtype in (np.int64, np.int32)
        if isinstance(array, np.ndarray) and array.ndim <= 1 and array.size <= 64 and (later or integer):
            model.graph.initializer.append(numpy_helper.from_array(array, value.name))
        else:
            kept.append(value)
            inputs.append(array)
    if len(kept) == len(case.inputs):
        return None
    del model.graph.input[:]
    model.graph.input.extend(kept)
    return Case(case.name, model, inputs, case.outputs, case.older)


def older_cases(case: Case) -> list[Case]:
    """The same test with each older version of its operator that ONNX Runtime runs."""
    if len(case.model.graph.node) != 1 or case.model.functions:
        return []
    node, opset, made = case.model.graph.node[0], case.opset, []
    if node.op_type not in OPERATORS:
        return []
    same = reproduces(case)
    while True:
        since = onnx.defs.get_schema(node.op_type, opset, node.domain).since_version
        opset = since - 1
        if opset < OLDEST or not onnx.defs.has(node.op_type, opset, node.domain):
            return made
        older = labelled(case, opset)
        if older is not None and (same or agree(older.outputs, case.outputs)):
            made.append(older)


def onnxruntime_outputs(model: onnx.ModelProto, inputs: list) -> list:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {value.name: data for value, data in zip(model.graph.input, inputs)})


def agree(found: list, expected: list) -> bool:
    return all(np.shape(one) == np.shape(other) and np.allclose(
        np.asarray(one, np.float64), np.asarray(other, np.float64), rtol=1e-2, atol=1e-3, equal_nan=True)
        for one, other in zip(found, expected))


def reproduces(case: Case) -> bool:
    """Whether ONNX Runtime gives the test's own outputs: where it does not, it is no judge of older versions either."""
    try:
        return agree(onnxruntime_outputs(case.model, case.inputs), case.outputs)
    except Exception:  # Nor is one that does not run it.
        return False


def labelled(case: Case, opset: int) -> Case | None:
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    model.ir_version = min(model.ir_version, 8)
    for entry in model.opset_import:
        entry.version = opset
    inputs = list(case.inputs)
    if not make_attribute(model, inputs, opset):
        return None
    node = model.graph.node[0]
    known = onnx.defs.get_schema(node.op_type, opset, node.domain).attributes
    defaults = {"noop_with_empty_axes": 0, "num_outputs": None, "stash_type": 1, "antialias": 0, "allowzero": 0,
                "saturate": 1, "axis": None}
    for attribute in list(node.attribute):
        if attribute.name not in known:
            if attribute.name not in defaults or defaults[attribute.name] not in (None, attribute.i):
                return None
            node.attribute.remove(attribute)
    try:
        onnx.checker.check_model(model)
        outputs = onnxruntime_outputs(model, inputs)
    except Exception:  # What another runtime cannot judge is no test.
        return None
    return Case(f"{case.name}_opset{opset}", model, inputs, outputs, older=True)


def make_attribute(model: onnx.ModelProto, inputs: list, opset: int) -> bool:
    """Turns an input that the older operator has as an attribute into one. False where that is impossible."""
    node = model.graph.node[0]
    newer, name = ONCE_ATTRIBUTE.get(node.op_type, (0, ""))
    if opset >= newer or len(node.input) < 2 or not node.input[1]:
        return True
    place = next((index for index, value in enumerate(model.graph.input) if value.name == node.input[1]), None)
    if place is None or not isinstance(inputs[place], np.ndarray):
        return False
    values = inputs.pop(place).tolist()
    del model.graph.input[place]
    del node.input[1]
    if values:
        node.attribute.append(helper.make_attribute(name, values))
    return True


def write(case: Case, folder: Path) -> None:
    data = folder / "test_data_set_0"
    data.mkdir(parents=True, exist_ok=True)
    onnx.save(case.model, folder / "model.onnx")
    for kind, declared, values in (("input", case.model.graph.input, case.inputs),
                                   ("output", case.model.graph.output, case.outputs)):
        for index, (value, array) in enumerate(zip(declared, values)):
            if isinstance(array, (np.ndarray, np.generic)):
                tensor = numpy_helper.from_array(np.asarray(array), value.name)
                (data / f"{kind}_{index}.pb").write_bytes(tensor.SerializeToString())


def tolerance(case: Case) -> list[str]:
    """The tools' defaults, wider where results have 8 or 11 bits of mantissa."""
    kinds = {value.type.tensor_type.elem_type for value in [*case.model.graph.input, *case.model.graph.output]}
    if TensorProto.BFLOAT16 in kinds:
        return ["--atol", "2e-2", "--rtol", "2e-2"]
    if TensorProto.FLOAT16 in kinds:
        return ["--atol", "2e-3", "--rtol", "4e-3"]
    return []


def judge(case: Case, binaries: Path, timeout: float, keep: Path | None) -> Case:
    """The verdict on a case; where sizes depend on inputs, on the same case with constant sizes."""
    judge_as_it_is(case, binaries, timeout, keep)
    if case.verdict == "refused" and SIZE_REFUSAL in case.message and (constant := with_constant_sizes(case)):
        judge_as_it_is(constant, binaries, timeout, None)
        if constant.verdict != "refused":
            case.verdict, case.message = constant.verdict, constant.message
            if case.verdict == "passed":
                case.verdict = "constant"
    return case


def judge_as_it_is(case: Case, binaries: Path, timeout: float, keep: Path | None) -> Case:
    with tempfile.TemporaryDirectory() as temporary:
        folder = (keep / case.name) if keep else Path(temporary) / "case"
        write(case, folder)
        package = folder / "model.trips"
        case.verdict, case.message = command(
            [binaries / "trips-convert", folder / "model.onnx", "-o", package, "--force", "--quiet"], timeout, "refused")
        if not case.verdict and not package.exists():
            case.verdict, case.message = "crashed", "trips-convert: exit 0 without a package"
        if not case.verdict:
            case.verdict, case.message = command(
                [binaries / "trips-verify", package, "--golden", folder, "--quiet", *tolerance(case)], timeout, "wrong")
        case.verdict = case.verdict or "passed"
    return case


def command(line: list, timeout: float, on_one: str) -> tuple[str, str]:
    """An empty verdict for exit 0, else the verdict and the last line of what was said."""
    try:
        done = subprocess.run([str(part) for part in line], capture_output=True, text=True, errors="replace", timeout=timeout)
    except subprocess.TimeoutExpired:
        return "crashed", f"{line[0].name}: no answer in {timeout:g} s"
    if done.returncode == 0:
        return "", ""
    said = [" ".join(text.split()) for text in (done.stderr + "\n" + done.stdout).splitlines() if text.strip()]
    telling = [text for text in said if " FAIL:" in text] or said
    message = " / ".join(telling[:3]) or f"exit {done.returncode}, silent"
    if done.returncode == 1:
        return on_one, message
    if done.returncode in (64, 65):
        return "refused", message
    return "crashed", f"exit {done.returncode}: {message}"


def check_judge(cases: list[Case], binaries: Path, timeout: float) -> None:
    """A judge that finds nothing wrong with wrong outputs judges nothing."""
    case = next(case for case in cases if case.name in ("test_relu", "test_add", "test_abs") and not case.older)
    wrong = Case(case.name, case.model, case.inputs, [case.outputs[0] + 1])
    verdict = judge(wrong, binaries, timeout, None)
    if verdict.verdict != "wrong":
        raise SystemExit(f"{case.name} with wrong outputs is {verdict.verdict}, not wrong: {verdict.message}")


def summary(cases: list[Case]) -> None:
    groups = {
        "listed operators, opset <= 21": [case for case in cases if case.listed and not case.older and case.opset <= 21],
        f"listed operators, opset 22 to {NEWEST}": [case for case in cases if case.listed and not case.older and case.opset > 21],
        "older versions of listed operators": [case for case in cases if case.listed and case.older],
        "everything else": [case for case in cases if not case.listed],
    }
    kinds = ("passed", "constant", "refused", "wrong", "crashed")
    print(f"{'':38}{'tests':>7}" + "".join(f"{kind:>9}" for kind in kinds))
    for label, group in groups.items():
        counts = Counter(case.verdict for case in group)
        print(f"{label:38}{len(group):7}" + "".join(f"{counts[kind]:9}" for kind in kinds))
    for kind in ("crashed", "wrong", "refused"):
        found = [case for case in cases if case.verdict == kind and (case.listed or kind != "refused")]
        if found:
            print(f"\n{kind}:")
        for case in sorted(found, key=lambda case: (case.operators, case.name)):
            print(f"  {case.name:60} opset {case.opset:<3} {case.message[:160]}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=Path, default=Path(".build/release"), help="folder of the commands")
    parser.add_argument("--match", default="", help="only tests whose names hold this")
    parser.add_argument("--listed", action="store_true", help="only tests of the listed operators and types")
    parser.add_argument("--no-older", action="store_true", help="without the older versions")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--timeout", type=float, default=30)
    parser.add_argument("--keep", type=Path, help="leave models and data in this folder")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--count", action="store_true", help="only count the tests")
    options = parser.parse_args()
    cases = node_tests()
    if not options.count:
        check_judge(cases, options.bin, options.timeout)
    cases = [case for case in cases if options.match in case.name]
    if not options.no_older:
        cases += [older for case in cases for older in older_cases(case)]
    if options.listed:
        cases = [case for case in cases if case.listed]
    if options.count:
        print(Counter(("listed" if case.listed else "other", "older" if case.older else "as they are",
                       "<= 21" if case.opset <= 21 else "newer") for case in cases))
        return 0
    with ThreadPoolExecutor(options.jobs) as pool:
        work = pool.map(lambda case: judge(case, options.bin, options.timeout, options.keep), cases)
        for number, _ in enumerate(work, 1):
            if sys.stderr.isatty():
                print(f"\r{number}/{len(cases)}", end="", file=sys.stderr)
    summary(cases)
    if options.json:
        options.json.write_text(json.dumps(
            [{"name": case.name, "operators": case.operators, "opset": case.opset, "older": case.older,
              "listed": case.listed, "verdict": case.verdict, "message": case.message} for case in cases], indent=1))
    return int(any(case.verdict in ("wrong", "crashed") for case in cases))


if __name__ == "__main__":
    sys.exit(main())
