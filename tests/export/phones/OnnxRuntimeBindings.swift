// As much of ONNX Runtime's Swift classes as examples/phones uses: a network that keeps its input and gives what it is
// told.
@_exported import Foundation

public enum Told {
    nonisolated(unsafe) public static var output = Data()
    nonisolated(unsafe) public static var shape: [Int] = []
    nonisolated(unsafe) public static var input = Data()
}

public enum ORTLoggingLevel { case warning }

public enum ORTTensorElementDataType { case float }

public final class ORTEnv {
    public init(loggingLevel: ORTLoggingLevel) throws {}
}

public final class ORTSessionOptions {}

public final class ORTRunOptions {}

public final class ORTTensorTypeAndShapeInfo {
    public let shape: [NSNumber]

    init(_ shape: [NSNumber]) { self.shape = shape }
}

public final class ORTValue {
    private let data: NSMutableData
    private let shape: [NSNumber]

    public init(tensorData: NSMutableData, elementType: ORTTensorElementDataType, shape: [NSNumber]) throws {
        data = tensorData
        self.shape = shape
    }

    public func tensorData() throws -> NSMutableData { data }

    public func tensorTypeAndShapeInfo() throws -> ORTTensorTypeAndShapeInfo { ORTTensorTypeAndShapeInfo(shape) }
}

public final class ORTSession {
    public init(env: ORTEnv, modelPath: String, sessionOptions: ORTSessionOptions?) throws {}

    public func run(
        withInputs inputs: [String: ORTValue], outputNames: Set<String>, runOptions: ORTRunOptions?
    ) throws -> [String: ORTValue] {
        Told.input = Data(referencing: try inputs["images"]!.tensorData())
        let output = NSMutableData(data: Told.output)
        let shape = Told.shape.map { NSNumber(value: $0) }
        return ["boxes": try ORTValue(tensorData: output, elementType: .float, shape: shape)]
    }
}
