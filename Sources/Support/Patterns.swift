/// True where `text` matches a pattern in which `*` matches any run of characters.
package func matches(_ text: String, pattern: String) -> Bool {
    let (text, pattern) = (Array(text), Array(pattern))
    var (place, position) = (0, 0)
    var retry: (place: Int, position: Int)?
    while place < text.count {
        if position < pattern.count, pattern[position] == "*" {
            retry = (place, position)
            position += 1
        } else if position < pattern.count, pattern[position] == text[place] {
            place += 1
            position += 1
        } else if let last = retry {
            retry = (last.place + 1, last.position)
            (place, position) = (last.place + 1, last.position + 1)
        } else {
            return false
        }
    }
    return pattern[position...].allSatisfy { $0 == "*" }
}
