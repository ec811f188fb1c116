// Words in a UIImage, with ONNX Runtime. Swift package: https://github.com/microsoft/onnxruntime-swift-package-manager
import OnnxRuntimeBindings
import UIKit

enum TextDetectorError: Error {
    case noOutput
    case noPicture
    case otherNetwork  // its output is not of so many classes, with or without quads
}

/// A file of `export.py --format onnx`, made without --dynamic and --nms. Its card (best.onnx.card.md) says the input's
/// size, the classes, whether it has quads, and the threshold: this package of ONNX Runtime does not show what the file
/// says of itself. Call detect() outside of the main thread.
final class TextDetector {
    private let environment: ORTEnv
    private let session: ORTSession
    private let inputWidth, inputHeight, classes: Int
    private let quads: Bool
    let threshold: Float

    init(model: URL, inputWidth: Int, inputHeight: Int, classes: Int, quads: Bool, threshold: Float) throws {
        environment = try ORTEnv(loggingLevel: .warning)
        session = try ORTSession(env: environment, modelPath: model.path, sessionOptions: nil)
        self.inputWidth = inputWidth
        self.inputHeight = inputHeight
        self.classes = classes
        self.quads = quads
        self.threshold = threshold
    }

    /// The words of a picture, best first; corners in pixels of the upright picture.
    func detect(_ image: UIImage, threshold: Float? = nil) throws -> [Word] {
        // Drawn once, so that the pixels are upright whatever imageOrientation says.
        let format = UIGraphicsImageRendererFormat()
        format.scale = 1
        format.opaque = true
        let size = CGSize(width: image.size.width * image.scale, height: image.size.height * image.scale)
        let upright = UIGraphicsImageRenderer(size: size, format: format).image { context in
            UIColor.white.setFill()  // what is transparent
            context.fill(CGRect(origin: .zero, size: size))
            image.draw(in: CGRect(origin: .zero, size: size))
        }
        guard let picture = upright.cgImage else { throw TextDetectorError.noPicture }
        let letterbox = Letterbox(
            pictureWidth: picture.width, pictureHeight: picture.height, inputWidth: inputWidth, inputHeight: inputHeight)
        let input = try networkInput(picture, letterbox)
        let data = input.withUnsafeBytes { NSMutableData(bytes: $0.baseAddress!, length: $0.count) }
        let shape = [1, 3, inputHeight, inputWidth].map { NSNumber(value: $0) }
        let images = try ORTValue(tensorData: data, elementType: .float, shape: shape)
        let result = try session.run(withInputs: ["images": images], outputNames: ["boxes"], runOptions: nil)
        guard let boxes = result["boxes"] else { throw TextDetectorError.noOutput }
        let columns = 5 + classes + (quads ? 4 : 0)
        guard try boxes.tensorTypeAndShapeInfo().shape.last?.intValue == columns else {
            throw TextDetectorError.otherNetwork
        }
        let bytes = try boxes.tensorData() as Data
        // The bytes may live only as long as what the session returned.
        let output = withExtendedLifetime(result) { bytes.withUnsafeBytes { Array($0.bindMemory(to: Float.self)) } }
        return words(
            output: output, classes: classes, quads: quads, letterbox: letterbox,
            threshold: threshold ?? self.threshold)
    }

    /// (3, H, W) RGB, 0..1: the picture in its letterbox, grey around it.
    private func networkInput(_ picture: CGImage, _ box: Letterbox) throws -> [Float] {
        let plane = inputWidth * inputHeight
        var pixels = [UInt8](repeating: 114, count: 4 * plane)
        let drawn = pixels.withUnsafeMutableBytes { buffer -> Bool in
            guard let context = CGContext(
                data: buffer.baseAddress, width: inputWidth, height: inputHeight, bitsPerComponent: 8,
                bytesPerRow: 4 * inputWidth, space: CGColorSpace(name: CGColorSpace.sRGB)!,
                bitmapInfo: CGImageAlphaInfo.noneSkipLast.rawValue)
            else { return false }
            context.interpolationQuality = .high
            // Core Graphics counts y from below.
            let below = inputHeight - box.top - box.height
            context.draw(picture, in: CGRect(x: box.left, y: below, width: box.width, height: box.height))
            return true
        }
        if !drawn { throw TextDetectorError.noPicture }
        var input = [Float](repeating: 0, count: 3 * plane)
        for i in 0..<plane {
            for channel in 0..<3 {
                input[channel * plane + i] = Float(pixels[4 * i + channel]) / 255
            }
        }
        return input
    }
}

/// The words drawn on the picture.
func draw(_ words: [Word], on image: UIImage) -> UIImage {
    let format = UIGraphicsImageRendererFormat()
    format.scale = 1
    let size = CGSize(width: image.size.width * image.scale, height: image.size.height * image.scale)
    return UIGraphicsImageRenderer(size: size, format: format).image { renderer in
        image.draw(in: CGRect(origin: .zero, size: size))
        let context = renderer.cgContext
        context.setStrokeColor(UIColor(red: 0, green: 0.63, blue: 0.31, alpha: 1).cgColor)
        context.setLineWidth(max(2, size.width / 500))
        for word in words {
            let points = stride(from: 0, to: 8, by: 2).map {
                CGPoint(x: CGFloat(word.corners[$0]), y: CGFloat(word.corners[$0 + 1]))
            }
            context.addLines(between: points)
            context.closePath()
            context.strokePath()
        }
    }
}
