// SPDX-License-Identifier: MIT OR Apache-2.0

/// Heap cells whose creation can fail, which a class or `allocate` cannot report.
///
/// Every handle that C holds is the address of such a cell.
public enum Box<Value: ~Copyable> {
  /// Places a new value in heap storage, or leaves nothing allocated.
  public static func place(
    _ make: () throws(Failure) -> Value
  ) throws(Failure) -> UnsafeMutablePointer<Value> {
    // So that the address of any value has four bits to spare.
    let alignment = max(MemoryLayout<Value>.alignment, 16)
    let raw = unsafe try RawMemory.allocate(MemoryLayout<Value>.stride, alignment: alignment)
    // SAFETY: the allocation is large and aligned enough for one `Value`, and holds nothing else.
    let cell = unsafe raw.bindMemory(to: Value.self, capacity: 1)
    do throws(Failure) {
      unsafe cell.initialize(to: try make())
    } catch {
      unsafe RawMemory.free(raw)
      throw error
    }
    return unsafe cell
  }

  /// Ends a value that `place` made.
  public static func destroy(_ cell: UnsafeMutablePointer<Value>) {
    unsafe cell.deinitialize(count: 1)
    unsafe RawMemory.free(cell)
  }
}
