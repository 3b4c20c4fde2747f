import Foundation
import ToolSupport
import Trips

@main
struct InspectTool: Tool {
    static let configuration = CommandConfiguration(
        commandName: "trips-inspect", abstract: "Shows what a .trips package holds.", version: Trips.version)

    @Argument(help: ArgumentHelp("The package.", valueName: "model.trips"))
    var model: String

    @Flag(name: .long, help: "Print everything as JSON.")
    var json = false

    @Flag(name: .long, help: "List the tensors.")
    var tensors = false

    @Flag(name: .long, help: "Print the graphs, block by block.")
    var graph = false

    @Flag(name: .long, help: "Read and check every byte.")
    var verify = false

    @OptionGroup var common: CommonOptions

    func run() throws {
        print(model)
    }
}
