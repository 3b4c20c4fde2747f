/// The version of the library and its tools.
public let libraryVersion = "0.1.0"
