/// How the kernels read the weights [N, K] of a linear layer: in panels of 32 outputs (`trips_sgemm_pack`, `trips_igemm_pack`).
package enum PanelLayout: Hashable, Sendable {
    case float
    /// int8 weights with their scales; `group` inputs share one, 0: all of an output's.
    case int8(group: Int)
}

/// Weights in the layout of the kernels, in memory that they only read.
package struct Panels: @unchecked Sendable {
    package let layout: PanelLayout
    /// Identity of the scales that int8 panels hold.
    package let scales: String?
    /// Begins at a 64-byte boundary; valid as long as `owner` lives.
    package let bytes: UnsafeRawBufferPointer
    private let owner: any Sendable
    /// Throws where the bytes are damaged; reads all of them.
    package let check: @Sendable () throws -> Void

    package init(
        _ layout: PanelLayout, scales: String?, bytes: UnsafeRawBufferPointer, owner: any Sendable,
        check: @escaping @Sendable () throws -> Void
    ) {
        (self.layout, self.scales, self.bytes, self.owner, self.check) = (layout, scales, bytes, owner, check)
    }
}
