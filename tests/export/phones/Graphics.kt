// As much of Android's classes as examples/phones uses, to compile and run it without Android.
package android.graphics

class Bitmap(val width: Int, val height: Int, private val pixels: IntArray) {
    enum class Config { ARGB_8888 }

    fun getPixels(into: IntArray, offset: Int, stride: Int, x: Int, y: Int, width: Int, height: Int) {
        for (row in 0 until height) {
            pixels.copyInto(into, offset + row * stride, (y + row) * this.width + x, (y + row) * this.width + x + width)
        }
    }

    fun copy(config: Config, mutable: Boolean): Bitmap = Bitmap(width, height, pixels.copyOf())
}

class Canvas(val bitmap: Bitmap) {
    fun drawPath(path: Path, paint: Paint) = println("drawn ${path.points.joinToString(" ")}")
}

class Paint {
    enum class Style { STROKE }

    var style = Style.STROKE
    var strokeWidth = 0f
    var color = 0
}

class Path {
    val points = mutableListOf<Float>()

    fun moveTo(x: Float, y: Float) = lineTo(x, y)

    fun lineTo(x: Float, y: Float) {
        points += listOf(x, y)
    }

    fun close() = Unit
}

object Color {
    fun rgb(red: Int, green: Int, blue: Int): Int = (255 shl 24) or (red shl 16) or (green shl 8) or blue
}
