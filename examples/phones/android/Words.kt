// From a picture to the network's input, and from the network's output to words. Plain Kotlin, without Android.
// It does what OCRdistill's detect.py does with a file of one size.
package ocrdistill

import kotlin.math.abs
import kotlin.math.floor
import kotlin.math.max
import kotlin.math.min
import kotlin.math.round

private const val MOST = 1000 // words of a picture at most

/** A word. [corners]: x, y of four corners in pixels of the picture, clockwise from where reading begins. */
class Word(val corners: FloatArray, val score: Float, val category: Int)

/** How a picture lies in the network's input: its long side fits, grey is around it. */
class Letterbox(val pictureWidth: Int, val pictureHeight: Int, val inputWidth: Int, val inputHeight: Int) {
    val width: Int
    val height: Int
    val left: Int
    val top: Int

    init {
        val longest = max(pictureWidth, pictureHeight).toDouble()
        val fit = min(inputHeight / pictureHeight.toDouble(), inputWidth / pictureWidth.toDouble())
        val scale = round(fit * longest) / longest
        width = max(round(pictureWidth * scale).toInt(), 1)
        height = max(round(pictureHeight * scale).toInt(), 1)
        left = (inputWidth - width) / 2
        top = (inputHeight - height) / 2
    }

    fun pictureX(x: Double) = ((x - left) * pictureWidth / width).coerceIn(0.0, pictureWidth.toDouble())

    fun pictureY(y: Double) = ((y - top) * pictureHeight / height).coerceIn(0.0, pictureHeight.toDouble())
}

/** The network's input (3, H, W), RGB, 0..1. [row] gives line y of the upright picture, pixels as 0xAARRGGBB. */
fun networkInput(letterbox: Letterbox, row: (Int) -> IntArray): FloatArray {
    val plane = letterbox.inputWidth * letterbox.inputHeight
    val input = FloatArray(3 * plane) { 114f / 255f }
    val columns = sources(letterbox.pictureWidth, letterbox.width)
    val lines = sources(letterbox.pictureHeight, letterbox.height)
    val sums = FloatArray(3 * letterbox.width)
    for (y in 0 until letterbox.height) {
        sums.fill(0f)
        lines[y].weights.forEachIndexed { i, weight -> addLine(row(lines[y].first + i), columns, weight, sums) }
        for (x in 0 until letterbox.width) {
            val at = (letterbox.top + y) * letterbox.inputWidth + letterbox.left + x
            for (c in 0..2) input[c * plane + at] = round(sums[3 * x + c]) / 255f
        }
    }
    return input
}

/** Which pixels of a line make one of the resized line, and how much of each. */
private class Source(val first: Int, val weights: FloatArray)

/** Means over areas where a line shrinks, linear between centres where it grows: as OpenCV's AREA and LINEAR. */
private fun sources(from: Int, to: Int): List<Source> {
    val scale = from.toDouble() / to
    return List(to) { i ->
        if (scale > 1) {
            val start = i * scale
            val end = min(start + scale, from.toDouble())
            val first = start.toInt()
            val last = min(from - 1, if (end > floor(end)) end.toInt() else end.toInt() - 1)
            Source(first, FloatArray(last - first + 1) { j ->
                ((min(end, first + j + 1.0) - max(start, (first + j).toDouble())) / (end - start)).toFloat()
            })
        } else {
            val centre = ((i + 0.5) * scale - 0.5).coerceIn(0.0, from - 1.0)
            val part = (centre - floor(centre)).toFloat()
            Source(centre.toInt(), if (part > 0) floatArrayOf(1 - part, part) else floatArrayOf(1f))
        }
    }
}

private fun addLine(pixels: IntArray, columns: List<Source>, weight: Float, sums: FloatArray) {
    columns.forEachIndexed { x, column ->
        for (j in column.weights.indices) {
            val pixel = pixels[column.first + j]
            val alpha = pixel ushr 24
            val part = weight * column.weights[j]
            for (c in 0..2) sums[3 * x + c] += part * onWhite(pixel shr 16 - 8 * c and 255, alpha)
        }
    }
}

/** What shows of a colour on white, as viewers show what is transparent. */
private fun onWhite(colour: Int, alpha: Int) = 255 - (255 - colour) * alpha / 255f

/**
 * The words of the network's output, best first.
 *
 * [output]: M rows of centre x, y, width, height in pixels of the input, objectness, class scores, and with [quads] the
 * four edges that say how far a word's sides lean. [threshold]: the least score. [overlap]: above it the worse of two
 * words of a class goes.
 */
fun words(
    output: FloatArray, classes: Int, quads: Boolean, letterbox: Letterbox, threshold: Float, overlap: Double = if (quads) 0.3 else 0.45
): List<Word> {
    val columns = 5 + classes + if (quads) 4 else 0
    var found = (0 until output.size / columns)
        .filter { output[it * columns + 4] > threshold }
        .map { candidate(output, it * columns, classes, quads) }
        .filter { it.score > threshold }
        .sortedByDescending { it.score }
    // Boxes that overlap by more than 0.8 are one word, however their quads lie.
    found = suppress(found, if (quads) max(overlap, 0.8) else overlap) { a, b -> iou(a.box, b.box) }
    if (quads) found = suppress(found, overlap) { a, b -> quadIou(a.quad, b.quad) }
    return found.filter { onPicture(it.box, letterbox) }.take(MOST).map { it.toWord(letterbox) }
}

/** In pixels of the network's input. box: x1, y1, x2, y2; quad: x, y of its corners. */
private class Candidate(val box: DoubleArray, val quad: DoubleArray, val score: Float, val category: Int) {
    fun toWord(letterbox: Letterbox): Word {
        val corners = FloatArray(8) {
            (if (it % 2 == 0) letterbox.pictureX(quad[it]) else letterbox.pictureY(quad[it])).toFloat()
        }
        return Word(corners, score, category)
    }
}

private fun candidate(output: FloatArray, start: Int, classes: Int, quads: Boolean): Candidate {
    val category = (0 until classes).maxByOrNull { output[start + 5 + it] } ?: 0
    val x0 = output[start] - output[start + 2] / 2.0
    val y0 = output[start + 1] - output[start + 3] / 2.0
    val x1 = output[start] + output[start + 2] / 2.0
    val y1 = output[start + 1] + output[start + 3] / 2.0
    fun edge(number: Int) = if (quads) output[start + 5 + classes + number].toDouble() else 0.0
    val (t, b, l, r) = List(4) { edge(it) }
    fun lean(value: Double, side: Double) = max(value, 0.0) * side
    val (w, h) = Pair(x1 - x0, y1 - y0)
    val quad = doubleArrayOf(
        x0 + lean(-l, w), y0 + lean(-t, h), // each corner is one of the box, moved by the edges that lean away from it
        x1 - lean(r, w), y0 + lean(t, h),
        x1 - lean(-r, w), y1 - lean(-b, h),
        x0 + lean(l, w), y1 - lean(b, h),
    )
    return Candidate(doubleArrayOf(x0, y0, x1, y1), quad, output[start + 4] * output[start + 5 + category], category)
}

private fun onPicture(box: DoubleArray, letterbox: Letterbox) =
    letterbox.pictureX(box[0]) < letterbox.pictureX(box[2]) && letterbox.pictureY(box[1]) < letterbox.pictureY(box[3])

/** Those that no better one of their class, which stays, overlaps by more than [most]. */
private fun suppress(
    sorted: List<Candidate>, most: Double, overlap: (Candidate, Candidate) -> Double
): List<Candidate> {
    val kept = mutableListOf<Candidate>()
    for (one in sorted) {
        if (kept.none { it.category == one.category && overlap(it, one) > most }) kept += one
    }
    return kept
}

private fun iou(a: DoubleArray, b: DoubleArray): Double {
    val w = min(a[2], b[2]) - max(a[0], b[0])
    val h = min(a[3], b[3]) - max(a[1], b[1])
    if (w <= 0 || h <= 0) return 0.0
    return w * h / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - w * h)
}

/** Of two quads, each convex: the first is cut by the four sides of the second (Sutherland and Hodgman). */
fun quadIou(a: DoubleArray, b: DoubleArray): Double {
    var rest = a
    for (side in 0 until 4) rest = cut(rest, b, 2 * side, 2 * ((side + 1) % 4))
    val shared = abs(area(rest))
    val union = abs(area(a)) + abs(area(b)) - shared
    return if (union > 0) shared / union else 0.0
}

/** What of [polygon] lies to the right of the line from b[from] to b[to], which is inside, as b goes clockwise. */
private fun cut(polygon: DoubleArray, b: DoubleArray, from: Int, to: Int): DoubleArray {
    fun distance(x: Double, y: Double) =
        (b[to] - b[from]) * (y - b[from + 1]) - (b[to + 1] - b[from + 1]) * (x - b[from])
    val result = ArrayList<Double>()
    for (i in polygon.indices step 2) {
        val next = (i + 2) % polygon.size
        val (x, y) = Pair(polygon[i], polygon[i + 1])
        val here = distance(x, y)
        val there = distance(polygon[next], polygon[next + 1])
        if (here >= 0) result += listOf(x, y)
        if ((here >= 0) != (there >= 0)) {
            val step = here / (here - there)
            result += listOf(x + step * (polygon[next] - x), y + step * (polygon[next + 1] - y))
        }
    }
    return result.toDoubleArray()
}

private fun area(polygon: DoubleArray): Double = polygon.indices.step(2).sumOf {
    val next = (it + 2) % polygon.size
    polygon[it] * polygon[next + 1] - polygon[next] * polygon[it + 1]
} / 2
