import ModelGraph

extension Graph {
    /// Lifts what exporters write into block operators: patch and word embeddings, Linear, LayerNorm, GELU, Attention, masks,
    /// L2 normalisation; padding, normalisation and activations of convolutions. What is not recognised stays as it is.
    /// - Parameter validating: check the whole graph after each rewrite (for tests).
    /// - Throws: `data` where a rewrite would change a type, which is a mistake in it.
    @discardableResult
    package mutating func fuse(validating: Bool = false) throws -> AuditTrail {
        var trail = AuditTrail()
        let isClose = Closeness(of: self)
        let rewrites: [any Rewrite] = [
            DropIdentities(), SimplifyViews(), SinkExpansions(), DropLookups(), LowerEinsum(),
            LiftDynamicQuantization(), DropDynamicRounding(), LiftMovedIntegers(), DropFixedRounding(),
            FusePatchEmbedding(), FuseTokens(), FuseEmbedding(), FuseLinear(), FuseBias(),
            FuseLayerNorm(), FuseGELU(isClose: isClose), FuseL2Normalize(isClose: isClose), FusePaddingMask(),
            FuseAttention(isClose: isClose), SinkViews(), FusePadding(), FuseBatchNormalization(), FuseSwish(),
            UnpackProjections(), LiftPatchSelection(isClose: isClose), ThreadPositions(), MergeDuplicates(),
        ]
        for _ in 0..<16 {
            let rewritten = try rewrite(rewrites, validating: validating)
            trail.add(rewritten)
            prune()
            let folded = try fold(lookups: true)
            trail.merge(folded)
            if rewritten.isEmpty { break }
        }
        try tidyNames()
        return trail
    }
}
