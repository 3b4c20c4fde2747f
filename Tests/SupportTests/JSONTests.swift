import Testing

import Support

@Suite struct JSONTests {
    @Test func readsEveryKindOfValue() throws {
        let json = try JSON(parsing: Array(#" {"a": [1, -2.5e1, true, false, null], "ß": "\u00e9\n\ud83d\ude00"} "#.utf8))
        #expect(json["a"]?.array == [.integer(1), .number(-25), .bool(true), .bool(false), .null])
        #expect(json["ß"]?.string == "é\n😀")
        #expect(json["b"] == nil)
    }

    @Test(arguments: [
        "", " ", "{", "[1,]", "{\"a\":1,}", "{\"a\" 1}", "01", "-", "1.", "1e", ".5", "tru", "\"", "\"\\x\"", "\"\\ud800\"",
        "\"\\ud800\\u0041\"",
        "\"\\u12\"", "\"\u{1}\"", "\"\u{1F}\"", "[1] 2", "1e999", "{1:2}", "nan",
    ])
    func refusesWhatIsNotJSON(_ text: String) {
        #expect(throws: TripsError.self) { try JSON(parsing: Array(text.utf8)) }
    }

    @Test func refusesDuplicateKeysDepthAndInvalidUTF8() throws {
        #expect { try JSON(parsing: Array(#"{"a":1,"a":2}"#.utf8)) } throws: { "\($0)".contains("\"a\" twice") }
        let deep = Array(String(repeating: "[", count: 100_000).utf8)
        #expect { try JSON(parsing: deep) } throws: { "\($0)".contains("at most 64 levels") }
        func nested(_ depth: Int) throws {
            _ = try JSON(parsing: Array((String(repeating: "[", count: depth) + String(repeating: "]", count: depth)).utf8))
        }
        try nested(64)
        #expect { try nested(65) } throws: { "\($0)".contains("at most 64 levels") }
        #expect(throws: TripsError.self) { try JSON(parsing: [0x22, 0xFF, 0x22]) }
    }

    @Test func isPrintedAsJSON() throws {
        let text = #"{"a": [1, -25.0, true, null, {}], "ß\"\\": "é\u000a\u0001"}"#
        let json = try JSON(parsing: Array(text.utf8))
        #expect("\(json)" == text)
    }

    @Test func numbersBeyondIntegersStayNumbers() throws {
        #expect(try JSON(parsing: Array("9223372036854775807".utf8)).integer == .max)
        #expect(try JSON(parsing: Array("9223372036854775808".utf8)).double == 9_223_372_036_854_775_808)
    }
}
