/// The version of the library and its tools.
public let version = "0.1.0"
