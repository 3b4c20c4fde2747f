import Importers
import Tensors
import Testing

@Suite struct Resampling {
    /// Numbers of torch.nn.functional.interpolate with align_corners=False, from a 3 x 3 grid.
    @Test(arguments: [
        (Interpolation.bicubic, 2, [0.721245, -0.359776, 2.65192, 0.099796]),
        (.bilinear, 2, [0.765625, -0.265625, 2.453125, 0.15625]),
        (
            .bilinear, 5,
            [
                1.0, -0.2, -2.0, -0.5, 0.5, 1.8, 0.64, -1.1, -0.5, -0.1, 3.0, 1.9, 0.25, -0.5, -1.0, 2.4, 2.44, 2.5, 0.49, -0.85,
                2.0, 2.8,
                4.0, 1.149999, -0.75,
            ]
        ),
    ]) func matchesTorch(_ interpolation: Interpolation, _ size: Int, _ expected: [Float]) throws {
        let grid: [Float] = [9, 1, -2, 0.5, 3, 0.25, -1, 2, 4, -0.75]
        let positions = Constant(try Tensor(grid, shape: [1, 10, 1]), identity: "positions")
        let resampled: [Float] = try positions.resampled(grid: 3, to: size, interpolation).load().elements()
        #expect(resampled.first == 9)
        #expect(resampled.count == expected.count + 1)
        for (found, stated) in zip(resampled.dropFirst(), expected) { #expect(abs(found - stated) < 1e-5) }
    }
}
