import TestSupport
import Testing
import Trips

/// What counts where neither an option, a config file nor the metadata says anything.
@Suite struct ReleasedDefaultsTests {
    private static func imported(_ architecture: Architecture) throws -> ImportedModel {
        let file = try SafetensorsFile(path: "\(fixtures)/\(architecture.rawValue)/checkpoint.safetensors")
        return try importCheckpoint(Checkpoint(tensors: file.tensors), options: .init(architecture: architecture))
    }

    /// Question answering of mPLUG-base connects every third fusion layer; in the others none is.
    @Test(arguments: [(Architecture.mplugVQA, "3"), (.mplugRetrieval, "6"), (.mplugGrounding, "6")])
    func fusionLayersAreConnectedAsReleased(_ architecture: Architecture, _ stride: String) throws {
        #expect(try Self.imported(architecture).settings.contains(Setting("stride_layer", stride, from: .released)))
    }

    /// Within the twenty positions of these decoders.
    @Test(arguments: [(Architecture.mplugVQA, 1, 10), (.mplugCaption, 8, 20)])
    func textIsGeneratedAsReleased(_ architecture: Architecture, _ minimalLength: Int, _ maximalLength: Int) throws {
        let expected = Generation(
            method: .beam, startID: 101, endID: 102, beam: 5, minimalLength: minimalLength, maximalLength: maximalLength)
        #expect(try Self.imported(architecture).generation == expected)
    }

    @Test(arguments: [Architecture.mplugRetrieval, .albefPretrain, .albefVE]) func othersGenerateNothing(
        _ architecture: Architecture
    ) throws {
        #expect(try Self.imported(architecture).generation == nil)
    }
}
