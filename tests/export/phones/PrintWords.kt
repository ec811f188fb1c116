// The words that examples/phones finds in a picture, given the network's output: see test_phones.py.
import ai.onnxruntime.Told
import android.graphics.Bitmap
import java.io.DataInputStream
import java.io.DataOutputStream
import java.io.File
import ocrdistill.TextDetector
import ocrdistill.draw

fun main(arguments: Array<String>) {
    val folder = File(arguments[0])
    Told.metadata = File(folder, "metadata.txt").readLines().associate { it.substringBefore('\t') to it.substringAfter('\t') }
    Told.output = ints(File(folder, "output.bin")).map { Float.fromBits(it) }.toFloatArray()
    val picture = ints(File(folder, "picture.bin")) // width, height, pixels
    val bitmap = Bitmap(picture[0], picture[1], picture.copyOfRange(2, picture.size))
    TextDetector(ByteArray(0)).use { detector ->
        val found = detector.detect(bitmap)
        for (word in found) println("${word.corners.joinToString(" ")} ${word.score} ${word.category}")
        draw(bitmap, found.take(1))
    }
    DataOutputStream(File(folder, "input.bin").outputStream().buffered()).use { stream ->
        Told.input.forEach { stream.writeFloat(it) }
    }
}

fun ints(file: File): IntArray = DataInputStream(file.inputStream().buffered()).use { stream ->
    IntArray((file.length() / 4).toInt()) { stream.readInt() }
}
