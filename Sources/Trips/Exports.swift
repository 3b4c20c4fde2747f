// One import gives a program the whole library.
@_exported import Goldens
@_exported import Importers
@_exported import ModelGraph
@_exported import PackageFormat
@_exported import Preprocessing
@_exported import Quantization
@_exported import Rewrites
@_exported import Runtime
@_exported import Support
@_exported import Tensors
@_exported import Verification
