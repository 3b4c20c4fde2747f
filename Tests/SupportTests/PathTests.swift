import Support
import Testing

@Test(arguments: [
    ("a/b", "a", "b"), ("/b", "/", "b"), ("/a/b", "/a", "b"), ("b", ".", "b"), ("b/", ".", "b"), ("a//b//", "a", "b"),
    ("./b", ".", "b"),
    ("x", ".", "x"), ("-", ".", "-"), (".", ".", "."), ("", ".", ""), ("a//é", "a", "é"), ("a/\u{301}b", "a", "\u{301}b"),
    ("/", "/", "/"),
]) func pathsAreFolderAndName(path: String, folder: String, name: String) {
    #expect(Support.folder(of: path) == folder && fileName(of: path) == name)
}
