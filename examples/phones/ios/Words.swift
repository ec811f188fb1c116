// From the network's output to words. Plain Swift, without Apple's frameworks but Foundation.
// It does what ../android/Words.kt does, function by function.
import Foundation

private let most = 1000  // words of a picture at most

/// A word. corners: x, y of four corners in pixels of the picture, clockwise from where reading begins.
struct Word {
    let corners: [Float]
    let score: Float
    let category: Int
}

/// How a picture lies in the network's input: its long side fits, grey is around it.
struct Letterbox {
    let pictureWidth, pictureHeight, inputWidth, inputHeight: Int
    let width, height, left, top: Int

    init(pictureWidth: Int, pictureHeight: Int, inputWidth: Int, inputHeight: Int) {
        self.pictureWidth = pictureWidth
        self.pictureHeight = pictureHeight
        self.inputWidth = inputWidth
        self.inputHeight = inputHeight
        let longest = Double(max(pictureWidth, pictureHeight))
        let fit = min(Double(inputHeight) / Double(pictureHeight), Double(inputWidth) / Double(pictureWidth))
        let scale = (fit * longest).rounded(.toNearestOrEven) / longest
        width = max(Int((Double(pictureWidth) * scale).rounded(.toNearestOrEven)), 1)
        height = max(Int((Double(pictureHeight) * scale).rounded(.toNearestOrEven)), 1)
        left = (inputWidth - width) / 2
        top = (inputHeight - height) / 2
    }

    func pictureX(_ x: Double) -> Double {
        min(max((x - Double(left)) * Double(pictureWidth) / Double(width), 0), Double(pictureWidth))
    }

    func pictureY(_ y: Double) -> Double {
        min(max((y - Double(top)) * Double(pictureHeight) / Double(height), 0), Double(pictureHeight))
    }
}

/// The words of the network's output, best first.
///
/// output: M rows of centre x, y, width, height in pixels of the input, objectness, class scores, and with quads the four
/// edges that say how far a word's sides lean. threshold: the least score. overlap: above it the worse of two words of a
/// class goes.
func words(
    output: [Float], classes: Int, quads: Bool, letterbox: Letterbox, threshold: Float, overlap given: Double? = nil
) -> [Word] {
    let overlap = given ?? (quads ? 0.3 : 0.45)
    let columns = 5 + classes + (quads ? 4 : 0)
    let rows = (0..<(output.count / columns)).filter { output[$0 * columns + 4] > threshold }
    var found: [Candidate] = rows.map { candidate(output, $0 * columns, classes, quads) }
    found = found.filter { $0.score > threshold }.sorted { $0.score > $1.score }
    // Boxes that overlap by more than 0.8 are one word, however their quads lie.
    found = suppress(found, quads ? max(overlap, 0.8) : overlap) { iou($0.box, $1.box) }
    if quads {
        found = suppress(found, overlap) { quadIou($0.quad, $1.quad) }
    }
    return found.filter { onPicture($0.box, letterbox) }.prefix(most).map { toWord($0, letterbox) }
}

/// In pixels of the network's input. box: x1, y1, x2, y2; quad: x, y of its corners.
private struct Candidate {
    let box, quad: [Double]
    let score: Float
    let category: Int
}

private func toWord(_ candidate: Candidate, _ letterbox: Letterbox) -> Word {
    let corners = candidate.quad.enumerated().map { index, value in
        Float(index % 2 == 0 ? letterbox.pictureX(value) : letterbox.pictureY(value))
    }
    return Word(corners: corners, score: candidate.score, category: candidate.category)
}

private func candidate(_ output: [Float], _ start: Int, _ classes: Int, _ quads: Bool) -> Candidate {
    let scores = output[(start + 5)..<(start + 5 + classes)]
    let best = scores.max() ?? 0
    let category = (scores.firstIndex(of: best) ?? start + 5) - (start + 5)
    let x = Double(output[start]), y = Double(output[start + 1])
    let w = Double(output[start + 2]), h = Double(output[start + 3])
    let x0 = x - w / 2, y0 = y - h / 2, x1 = x + w / 2, y1 = y + h / 2
    func edge(_ number: Int) -> Double { quads ? Double(output[start + 5 + classes + number]) : 0 }
    let t = edge(0), b = edge(1), l = edge(2), r = edge(3)
    func lean(_ value: Double, _ side: Double) -> Double { max(value, 0) * side }
    // Each corner is one of the box, moved by the edges that lean away from it.
    let topLeft = [x0 + lean(-l, w), y0 + lean(-t, h)]
    let topRight = [x1 - lean(r, w), y0 + lean(t, h)]
    let bottomRight = [x1 - lean(-r, w), y1 - lean(-b, h)]
    let bottomLeft = [x0 + lean(l, w), y1 - lean(b, h)]
    let quad = topLeft + topRight + bottomRight + bottomLeft
    return Candidate(box: [x0, y0, x1, y1], quad: quad, score: output[start + 4] * best, category: category)
}

private func onPicture(_ box: [Double], _ letterbox: Letterbox) -> Bool {
    letterbox.pictureX(box[0]) < letterbox.pictureX(box[2]) && letterbox.pictureY(box[1]) < letterbox.pictureY(box[3])
}

/// Those that no better one of their class, which stays, overlaps by more than `most`.
private func suppress(
    _ sorted: [Candidate], _ most: Double, _ overlap: (Candidate, Candidate) -> Double
) -> [Candidate] {
    var kept: [Candidate] = []
    for one in sorted where !kept.contains(where: { $0.category == one.category && overlap($0, one) > most }) {
        kept.append(one)
    }
    return kept
}

private func iou(_ a: [Double], _ b: [Double]) -> Double {
    let w = min(a[2], b[2]) - max(a[0], b[0])
    let h = min(a[3], b[3]) - max(a[1], b[1])
    if w <= 0 || h <= 0 { return 0 }
    let areaA: Double = (a[2] - a[0]) * (a[3] - a[1])
    let areaB: Double = (b[2] - b[0]) * (b[3] - b[1])
    return w * h / (areaA + areaB - w * h)
}

/// Of two quads, each convex: the first is cut by the four sides of the second (Sutherland and Hodgman).
func quadIou(_ a: [Double], _ b: [Double]) -> Double {
    var rest = a
    for side in 0..<4 {
        rest = cut(rest, b, 2 * side, 2 * ((side + 1) % 4))
    }
    let shared = abs(area(rest))
    let union = abs(area(a)) + abs(area(b)) - shared
    return union > 0 ? shared / union : 0
}

/// What of a polygon lies to the right of the line from b[from] to b[to], which is inside, as b goes clockwise.
private func cut(_ polygon: [Double], _ b: [Double], _ from: Int, _ to: Int) -> [Double] {
    let alongX: Double = b[to] - b[from]
    let alongY: Double = b[to + 1] - b[from + 1]
    func distance(_ x: Double, _ y: Double) -> Double {
        alongX * (y - b[from + 1]) - alongY * (x - b[from])
    }
    var result: [Double] = []
    for i in stride(from: 0, to: polygon.count, by: 2) {
        let next = (i + 2) % polygon.count
        let x = polygon[i], y = polygon[i + 1]
        let here = distance(x, y)
        let there = distance(polygon[next], polygon[next + 1])
        if here >= 0 { result += [x, y] }
        if (here >= 0) != (there >= 0) {
            let step = here / (here - there)
            result += [x + step * (polygon[next] - x), y + step * (polygon[next + 1] - y)]
        }
    }
    return result
}

private func area(_ polygon: [Double]) -> Double {
    var sum = 0.0
    for i in stride(from: 0, to: polygon.count, by: 2) {
        let next = (i + 2) % polygon.count
        sum += polygon[i] * polygon[next + 1] - polygon[next] * polygon[i + 1]
    }
    return sum / 2
}
