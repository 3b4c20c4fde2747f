// swift-tools-version: 6.0
import PackageDescription

// Modules in the order in which they may import: each only those above it.
let modules: [(name: String, dependencies: [Target.Dependency])] = [
    ("Support", []),
    ("Tensors", ["Support"]),
    ("ModelGraph", ["Support", "Tensors"]),
    ("Operators", ["Support", "Tensors", "ModelGraph", "Kernels", "COpenBLAS"]),
    ("Importers", ["Support", "Tensors", "ModelGraph", "Operators", "OnnxSchema", "Kernels", "CZlib"]),
    ("Rewrites", ["Support", "Tensors", "ModelGraph", "Operators"]),
    ("PackageFormat", ["Support", "Tensors", "ModelGraph", "Kernels", "CZstd"]),
    ("Runtime", ["Support", "Tensors", "ModelGraph", "Operators", "Rewrites", "PackageFormat", "Kernels"]),
    ("Goldens", ["Support", "Tensors", "Importers"]),
    (
        "Quantization",
        [
            "Support", "Tensors", "ModelGraph", "Operators", "Rewrites", "PackageFormat", "Runtime", "Goldens", "Kernels",
            "COpenBLAS",
        ]
    ),
    ("Preprocessing", ["Support", "Tensors", "PackageFormat", "CPictures"]),
    ("Verification", ["Preprocessing", "Support", "Tensors", "ModelGraph", "PackageFormat", "Runtime", "Goldens"]),
    (
        "Trips",
        [
            "Support", "Tensors", "ModelGraph", "Importers", "Rewrites", "PackageFormat", "Runtime", "Goldens",
            "Quantization", "Preprocessing", "Verification",
        ]
    ),
    (
        "ToolSupport",
        [
            "Trips", "Preprocessing", "Support", "Tensors", "ModelGraph", "Operators", "Importers", "Rewrites", "PackageFormat",
            "Runtime", "Goldens", "Verification", .product(name: "ArgumentParser", package: "swift-argument-parser"),
        ]
    ),
]

let tools = ["trips-convert", "trips-quantize", "trips-verify", "trips-inspect", "trips-bench", "trips-run"]

// Programs for working on the package itself; the scripts in tools/ build them with TRIPS_DEVELOPMENT=1.
let fuzzers: [(name: String, dependencies: [Target.Dependency])] = [
    ("fuzz-package", ["PackageFormat", "Rewrites", "Support", "Tensors"]),
    ("fuzz-safetensors", ["Importers"]),
    ("fuzz-torch", ["Importers"]),
    ("fuzz-pickle", ["Importers", "Support"]),
    ("fuzz-onnx", ["Importers", "Rewrites"]),
    ("fuzz-external-data", ["Importers", "Support"]),
    ("fuzz-test-data", ["Importers"]),
    ("fuzz-golden", ["Goldens"]),
]
let development: [Target] =
    Context.environment["TRIPS_DEVELOPMENT"] == nil
    ? []
    : [
        .executableTarget(
            name: "benchmark-format", dependencies: ["Importers", "PackageFormat"], path: "tools/development/benchmark-format"),
        .target(name: "FuzzSupport", dependencies: ["Support", "Kernels", "ModelGraph"], path: "tools/development/FuzzSupport"),
    ]
        + fuzzers.map {
            // gold, the default linker, does not cope with libFuzzer.
            .executableTarget(
                name: $0.name, dependencies: $0.dependencies + ["FuzzSupport"], path: "tools/development/\($0.name)",
                linkerSettings: [.unsafeFlags(["-use-ld=lld"])])
        }

// Beside the module itself and TestSupport.
let furtherTestDependencies: [String: [Target.Dependency]] = ["Rewrites": ["Importers", "Goldens"]]

let package = Package(
    name: "trips",
    products: [.library(name: "Trips", targets: ["Trips"])]
        + tools.map { .executable(name: $0, targets: [$0]) },
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2")
    ],
    targets: [
        .systemLibrary(name: "COpenBLAS", pkgConfig: "openblas", providers: [.apt(["libopenblas-dev"])]),
        .systemLibrary(name: "CZstd", pkgConfig: "libzstd", providers: [.apt(["libzstd-dev"])]),
        .systemLibrary(name: "CProtobufC", pkgConfig: "libprotobuf-c", providers: [.apt(["libprotobuf-c-dev"])]),
        .systemLibrary(name: "CZlib", pkgConfig: "zlib", providers: [.apt(["zlib1g-dev"])]),
        .systemLibrary(name: "CJPEG", pkgConfig: "libjpeg", providers: [.apt(["libjpeg62-turbo-dev"])]),
        .systemLibrary(name: "CPNG", pkgConfig: "libpng", providers: [.apt(["libpng-dev"])]),
        .target(name: "OnnxSchema", dependencies: ["CProtobufC"]),
        .target(name: "CPictures", dependencies: ["CJPEG", "CPNG"]),
        .target(name: "Kernels"),
        .target(name: "TestSupport", dependencies: ["Support", "Tensors", "ModelGraph", "Operators"], path: "Tests/TestSupport"),
    ]
        + modules.map { .target(name: $0.name, dependencies: $0.dependencies) }
        + tools.map { .executableTarget(name: $0, dependencies: modules.map { .target(name: $0.name) }) }
        + (["Kernels"] + modules.map(\.name)).map {
            .testTarget(
                name: "\($0)Tests", dependencies: [.target(name: $0), "TestSupport"] + (furtherTestDependencies[$0] ?? []))
        }
        + development,
    swiftLanguageModes: [.v6]
)
