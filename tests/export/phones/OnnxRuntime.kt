// As much of ONNX Runtime's Java classes as examples/phones uses: a network that keeps its input and gives what it is told.
package ai.onnxruntime

import java.nio.FloatBuffer

object Told {
    var metadata = mapOf<String, String>()
    var output = FloatArray(0)
    var input = FloatArray(0)
}

class OrtEnvironment private constructor() {
    companion object {
        @JvmStatic
        fun getEnvironment() = OrtEnvironment()
    }

    fun createSession(model: ByteArray, options: OrtSession.SessionOptions) = OrtSession()
}

class OrtSession : AutoCloseable {
    class SessionOptions {
        fun setIntraOpNumThreads(threads: Int) = Unit
    }

    class Metadata(val customMetadata: Map<String, String>)

    class Result : AutoCloseable {
        fun get(number: Int): OnnxValue = OnnxTensor(FloatBuffer.wrap(Told.output))

        override fun close() = Unit
    }

    val metadata = Metadata(Told.metadata)

    fun run(inputs: Map<String, OnnxTensor>): Result {
        Told.input = inputs.getValue("images").floatBuffer.array()
        return Result()
    }

    override fun close() = Unit
}

interface OnnxValue : AutoCloseable

class OnnxTensor(val floatBuffer: FloatBuffer) : OnnxValue {
    companion object {
        @JvmStatic
        fun createTensor(environment: OrtEnvironment, data: FloatBuffer, shape: LongArray) = OnnxTensor(data)
    }

    override fun close() = Unit
}
