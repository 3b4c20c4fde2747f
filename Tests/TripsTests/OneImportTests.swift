import Foundation
import TestSupport
import Testing
import Trips

/// What a program names that imports the library alone.
@Suite struct OneImportTests {
    @Test func aSelectionCanBeAskedForAndItsReportRead() throws {
        var options = ConversionOptions()
        options.selection = SelectionRequest(blocks: [2], keepRates: [0.5])
        let prepared = try prepare("\(fixtures)/albef-retrieval/checkpoint.safetensors", options)
        let (imported, report): (ImportedModel, SelectionReport?) = (prepared.imported, prepared.selection)
        #expect(imported.architecture == .albefRetrieval)
        #expect(report?.blocks.map(\.block) == [2])
    }
}
