import Support
import Testing

@Test func patternsMatchWholeNames() {
    #expect(matches("image_feat", pattern: "image_*"))
    #expect(matches("image_feat", pattern: "*"))
    #expect(matches("a.b.c", pattern: "a*c"))
    #expect(matches("aXbXc", pattern: "*X*c"))
    #expect(!matches("image_feat", pattern: "image"))
    #expect(!matches("ab", pattern: "a*c"))
    #expect(matches("", pattern: "*") && !matches("", pattern: "a"))
    #expect(matches("aa", pattern: "a*a") && !matches("a", pattern: "a*a"))
}
