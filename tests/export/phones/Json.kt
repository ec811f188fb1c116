// As much of Android's org.json as examples/phones uses.
package org.json

class JSONArray(text: String) {
    private val numbers = text.trim('[', ']').split(",").map { it.trim().toInt() }

    fun getInt(index: Int) = numbers[index]
}

class JSONObject(private val text: String) {
    fun length() = text.count { it == ':' }
}
