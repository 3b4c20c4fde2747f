import CPictures
import Support

/// A picture of 8-bit red, green and blue, row by row from the top.
public struct Picture: Sendable, Equatable {
    /// In pixels.
    public let width: Int
    /// In pixels.
    public let height: Int
    /// 3 · width · height bytes.
    public package(set) var pixels: [UInt8]

    /// - Throws: `data` where the number of bytes is not that of the size.
    public init(width: Int, height: Int, pixels: [UInt8]) throws {
        guard width > 0, height > 0, width <= Picture.maximalSide, height <= Picture.maximalSide, pixels.count == 3 * width * height
        else {
            throw TripsError.data("pixels of a picture", found: pixels.count, expected: "3 * \(width) * \(height)")
        }
        (self.width, self.height, self.pixels) = (width, height, pixels)
    }

    /// The largest width and height of a picture, in pixels.
    public static let maximalSide = 32768
    /// The largest area of a picture that is read, in pixels.
    public static let maximalArea = 100_000_000

    /// Reads a JPEG or PNG file, distinguished by their first bytes. Transparency is dropped, orientation tags and colour
    /// profiles are left alone, as Pillow's `convert("RGB")` does.
    /// - Throws: `cannotOpen`, or `data` for what is damaged, too large, or another format.
    public init(path: String) throws {
        let file = try ReadableFile(path: path)
        self = try locating(file.name) {
            guard file.size <= 1 << 28 else {
                throw TripsError.data("size of a picture file", found: file.size, expected: "at most 256 MiB")
            }
            return try Picture(decoding: file.bytes(at: 0, count: file.size))
        }
    }

    /// Decodes a JPEG or PNG file in memory.
    /// - Throws: `data` for what is damaged, too large, or another format.
    public init(decoding bytes: [UInt8]) throws {
        let isJPEG = bytes.starts(with: [0xFF, 0xD8, 0xFF])
        guard isJPEG || bytes.starts(with: [0x89, 0x50, 0x4E, 0x47, 0x0D, 0x0A, 0x1A, 0x0A]) else {
            throw TripsError.data("not a picture that can be read", expected: "JPEG or PNG")
        }
        var size = trips_picture_size()
        try checked(isJPEG ? "JPEG" : "PNG") { message in
            isJPEG ? trips_jpeg_size(bytes, bytes.count, &size, message) : trips_png_size(bytes, bytes.count, &size, message)
        }
        let (width, height) = (Int(size.width), Int(size.height))
        guard width > 0, height > 0, width <= Picture.maximalSide, height <= Picture.maximalSide,
            width * height <= Picture.maximalArea
        else {
            throw TripsError.data(
                "size of a picture", found: "\(width) x \(height)",
                expected: "sides of at most \(Picture.maximalSide), \(Picture.maximalArea) pixels in all")
        }
        // Compression of either kind gives at most some 1100 pixels for a byte: a small file must not ask for gigabytes.
        guard width * height / 4096 <= bytes.count else {
            throw TripsError.data(
                "size of a picture", found: "\(width) x \(height) from \(bytes.count) bytes", expected: "what they can hold")
        }
        var pixels = [UInt8](repeating: 0, count: 3 * width * height)
        try checked(isJPEG ? "JPEG" : "PNG") { message in
            isJPEG
                ? trips_jpeg_decode(bytes, bytes.count, size, &pixels, message)
                : trips_png_decode(bytes, bytes.count, size, &pixels, message)
        }
        try self.init(width: width, height: height, pixels: pixels)
    }

    /// The picture as a PNG file.
    public func png() throws -> [UInt8] {
        final class Output { var bytes: [UInt8] = [] }
        let output = Output()
        try checked("PNG") { message in
            trips_png_encode(
                pixels, trips_picture_size(width: UInt32(width), height: UInt32(height)),
                { context, bytes, count in
                    guard let context, let bytes else { return -1 }
                    Unmanaged<Output>.fromOpaque(context).takeUnretainedValue().bytes += UnsafeBufferPointer(
                        start: bytes, count: count)
                    return 0
                }, Unmanaged.passUnretained(output).toOpaque(), message)
        }
        return output.bytes
    }
}

/// Calls a function of CPictures; its message becomes the error.
private func checked(_ format: String, _ body: (UnsafeMutablePointer<CChar>) -> Int32) throws {
    var message = [CChar](repeating: 0, count: 200)
    let status = message.withUnsafeMutableBufferPointer { buffer in buffer.baseAddress.map(body) ?? -1 }
    guard status == 0 else {
        let text = String(decoding: message.prefix { $0 != 0 }.map { UInt8(truncatingIfNeeded: $0) }, as: UTF8.self)
        throw TripsError.data("damaged or unsupported \(format)", found: text)
    }
}
