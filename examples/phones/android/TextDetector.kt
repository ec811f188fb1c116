// Words in a Bitmap, with ONNX Runtime. In build.gradle.kts: implementation("com.microsoft.onnxruntime:onnxruntime-android:1.27.0")
package ocrdistill

import ai.onnxruntime.OnnxTensor
import ai.onnxruntime.OrtEnvironment
import ai.onnxruntime.OrtSession
import android.graphics.Bitmap
import android.graphics.Canvas
import android.graphics.Color
import android.graphics.Paint
import android.graphics.Path
import java.nio.FloatBuffer
import org.json.JSONArray
import org.json.JSONObject

/**
 * [model]: the bytes of a file of `export.py --format onnx`, made without --dynamic and --nms:
 * `context.assets.open("words.onnx").use { it.readBytes() }`. Call detect() outside of the main thread.
 */
class TextDetector(model: ByteArray, threads: Int = 4) : AutoCloseable {
    private val environment = OrtEnvironment.getEnvironment()
    private val session: OrtSession
    private val inputWidth: Int
    private val inputHeight: Int
    private val classes: Int
    private val quads: Boolean
    val threshold: Float

    init {
        val options = OrtSession.SessionOptions()
        options.setIntraOpNumThreads(threads)
        session = environment.createSession(model, options)
        val about = session.metadata.customMetadata // each value is a JSON text
        require(about["format"] == "\"ocrdistill\"" && about["dynamic"] == "false" && about["nms"] == "null") {
            "not a file of export.py --format onnx of one size"
        }
        val size = JSONArray(about.getValue("imgsz"))
        inputHeight = size.getInt(0)
        inputWidth = size.getInt(1)
        classes = JSONObject(about.getValue("names")).length()
        quads = about["quads"] == "true"
        threshold = about["conf_threshold"]?.toFloatOrNull() ?: 0.25f
    }

    /** The words of an upright picture, best first. BitmapFactory does not turn pictures by their EXIF entry. */
    fun detect(bitmap: Bitmap, threshold: Float = this.threshold): List<Word> {
        val letterbox = Letterbox(bitmap.width, bitmap.height, inputWidth, inputHeight)
        val line = IntArray(bitmap.width)
        val input = networkInput(letterbox) { y ->
            bitmap.getPixels(line, 0, bitmap.width, 0, y, bitmap.width, 1)
            line
        }
        val shape = longArrayOf(1, 3, inputHeight.toLong(), inputWidth.toLong())
        OnnxTensor.createTensor(environment, FloatBuffer.wrap(input), shape).use { images ->
            session.run(mapOf("images" to images)).use { result ->
                val buffer = (result.get(0) as OnnxTensor).floatBuffer
                val output = FloatArray(buffer.remaining()).also { buffer.get(it) }
                return words(output, classes, quads, letterbox, threshold)
            }
        }
    }

    override fun close() = session.close()
}

/** Draw the words on a copy of the picture. */
fun draw(bitmap: Bitmap, words: List<Word>): Bitmap {
    val copy = bitmap.copy(Bitmap.Config.ARGB_8888, true)
    val canvas = Canvas(copy)
    val paint = Paint()
    paint.style = Paint.Style.STROKE
    paint.strokeWidth = maxOf(2f, bitmap.width / 500f)
    paint.color = Color.rgb(0, 160, 80)
    for (word in words) {
        val path = Path()
        path.moveTo(word.corners[0], word.corners[1])
        for (i in 2 until 8 step 2) path.lineTo(word.corners[i], word.corners[i + 1])
        path.close()
        canvas.drawPath(path, paint)
    }
    return copy
}
