import ModelGraph
import Testing

struct SelectionTraceTests {
    @Test(arguments: SelectionTrace.Part.allCases) func readsWhatItWrites(part: SelectionTrace.Part) {
        let trace = SelectionTrace(layer: 12, part)
        #expect(SelectionTrace(trace.name) == trace)
    }

    @Test(arguments: [
        "vision.2", "selection.2", "selection.2.tokens", "selection.0.indices", "selection.02.indices", "selection.+2.indices",
        "selection..2.indices", "selection.2.indices.", "selection0.2.indices", "selection.99999999999999999999.indices",
    ])
    func otherNamesAreNone(name: String) { #expect(SelectionTrace(name) == nil) }
}
