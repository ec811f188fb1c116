// The words that examples/phones finds in a picture, given the network's output: see test_phones.py.
import OnnxRuntimeBindings
import UIKit

@main
enum PrintWords {
    /// Folder, width and height of the network's input, classes, quads, threshold, columns of the output.
    static func main() throws {
        let arguments = CommandLine.arguments
        let folder = URL(fileURLWithPath: arguments[1])
        let numbers = arguments[2...6].map { Int($0)! }
        let output = try Data(contentsOf: folder.appendingPathComponent("output.bin"))
        Told.output = output
        Told.shape = [1, output.count / 4 / numbers[4], numbers[4]]
        let picture = [UInt8](try Data(contentsOf: folder.appendingPathComponent("picture.rgba")))
        let size = try String(contentsOf: folder.appendingPathComponent("size.txt"), encoding: .utf8).split(separator: " ")
        let image = UIImage(width: Int(size[0])!, height: Int(size[1])!, pixels: picture)
        let detector = try TextDetector(
            model: folder, inputWidth: numbers[0], inputHeight: numbers[1], classes: numbers[2], quads: numbers[3] == 1,
            threshold: 0.2)
        let found = try detector.detect(image)
        for word in found {
            print(word.corners.map { "\($0)" }.joined(separator: " "), word.score, word.category)
        }
        _ = draw(Array(found.prefix(1)), on: image)
        try Told.input.write(to: folder.appendingPathComponent("input.bin"))
    }
}
