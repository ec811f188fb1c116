// As much of UIKit and Core Graphics as examples/phones uses, to compile and run it without Apple's frameworks. Pixels
// are RGBA, upper rows first.
@_exported import Foundation

private var canvas: Canvas!  // what UIKit's drawing goes to

final class Canvas {
    let width, height: Int
    var pixels: [UInt8]

    init(_ width: Int, _ height: Int) {
        self.width = width
        self.height = height
        pixels = [UInt8](repeating: 0, count: 4 * width * height)
    }
}

public final class CGImage {
    let canvas: Canvas

    init(_ canvas: Canvas) { self.canvas = canvas }

    public var width: Int { canvas.width }
    public var height: Int { canvas.height }
}

public final class UIImage {
    public let cgImage: CGImage?
    public let scale: CGFloat = 1

    public init(width: Int, height: Int, pixels: [UInt8]) {
        let drawn = Canvas(width, height)
        drawn.pixels = pixels
        cgImage = CGImage(drawn)
    }

    init(_ canvas: Canvas) { cgImage = CGImage(canvas) }

    public var size: CGSize { CGSize(width: cgImage!.width, height: cgImage!.height) }

    /// Over what is there, by its alpha; it always fills the canvas here.
    public func draw(in rect: CGRect) {
        precondition(Int(rect.width) == canvas.width && Int(rect.height) == canvas.height)
        let source = cgImage!.canvas.pixels
        for i in stride(from: 0, to: source.count, by: 4) {
            let alpha = Double(source[i + 3]) / 255
            for channel in i..<(i + 3) {
                let below = Double(canvas.pixels[channel])
                canvas.pixels[channel] = UInt8((Double(source[channel]) * alpha + below * (1 - alpha)).rounded())
            }
        }
    }
}

public struct UIColor {
    public static let white = UIColor(red: 1, green: 1, blue: 1, alpha: 1)
    public let cgColor: [CGFloat]

    public init(red: CGFloat, green: CGFloat, blue: CGFloat, alpha: CGFloat) { cgColor = [red, green, blue, alpha] }

    public func setFill() {}
}

public final class UIGraphicsImageRendererFormat {
    public var scale: CGFloat = 2
    public var opaque = false

    public init() {}
}

public final class UIGraphicsImageRendererContext {
    public let cgContext = CGContext()

    /// With white.
    public func fill(_ rect: CGRect) { canvas.pixels = canvas.pixels.map { _ in 255 } }
}

public final class UIGraphicsImageRenderer {
    private let size: CGSize

    public init(size: CGSize, format: UIGraphicsImageRendererFormat) {
        precondition(format.scale == 1)
        self.size = size
    }

    public func image(_ actions: (UIGraphicsImageRendererContext) -> Void) -> UIImage {
        canvas = Canvas(Int(size.width), Int(size.height))
        actions(UIGraphicsImageRendererContext())
        return UIImage(canvas)
    }
}

public struct CGColorSpace {
    public static let sRGB = "sRGB"

    public init?(name: String) {}
}

public enum CGImageAlphaInfo: UInt32 {
    case noneSkipLast = 5
}

public final class CGContext {
    public enum Quality { case high }

    public var interpolationQuality = Quality.high
    private let data: UnsafeMutableRawPointer?
    private let width, height: Int
    private var points: [CGPoint] = []

    init() { (data, width, height) = (nil, 0, 0) }

    public init?(
        data: UnsafeMutableRawPointer?, width: Int, height: Int, bitsPerComponent: Int, bytesPerRow: Int,
        space: CGColorSpace, bitmapInfo: UInt32
    ) {
        precondition(bitsPerComponent == 8 && bytesPerRow == 4 * width && bitmapInfo == 5)
        (self.data, self.width, self.height) = (data, width, height)
    }

    /// By the nearest pixel; y counts from below.
    public func draw(_ image: CGImage, in rect: CGRect) {
        let source = image.canvas, top = height - Int(rect.minY) - Int(rect.height)
        for y in 0..<Int(rect.height) {
            for x in 0..<Int(rect.width) {
                let from = 4 * (y * source.height / Int(rect.height) * source.width + x * source.width / Int(rect.width))
                let to = 4 * ((top + y) * width + Int(rect.minX) + x)
                for channel in 0..<3 {
                    data!.storeBytes(of: source.pixels[from + channel], toByteOffset: to + channel, as: UInt8.self)
                }
            }
        }
    }

    public func setStrokeColor(_ color: [CGFloat]) {}

    public func setLineWidth(_ width: CGFloat) {}

    public func addLines(between points: [CGPoint]) { self.points = points }

    public func closePath() {}

    public func strokePath() { print("drawn", points.map { "\($0.x) \($0.y)" }.joined(separator: " ")) }
}
