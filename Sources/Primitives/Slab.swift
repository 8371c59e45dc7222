// SPDX-License-Identifier: MIT OR Apache-2.0

/// Cells of one size, taken and given back without allocation, refilled by the chunk.
///
/// Confined: the owner's lock guards it. A refill allocates, so the owner makes the chunk outside
/// of its lock and adds it inside. Chunks are freed with the slab and not before.
@safe
public struct Slab<Cell>: ~Copyable {
  // Links both the free cells and the chunks: the first word of each holds the next one's address.
  private var firstFree: UnsafeMutableRawPointer?
  private var firstChunk: UnsafeMutableRawPointer?

  /// Cells a chunk: 63 and the link fill 64 places.
  private static var chunkCount: Int { 63 }
  private static var stride: Int {
    max(MemoryLayout<Cell>.stride, MemoryLayout<UInt>.stride)
  }
  private static var alignment: Int {
    max(MemoryLayout<Cell>.alignment, MemoryLayout<UInt>.alignment)
  }

  /// Memory for more cells, not yet part of a slab.
  @safe
  public struct Chunk {
    fileprivate let memory: UnsafeMutableRawPointer
  }

  public init() {
    unsafe firstFree = nil
    unsafe firstChunk = nil
  }

  deinit {
    var chunk = unsafe firstChunk
    while let memory = unsafe chunk {
      unsafe chunk = memory.load(as: UnsafeMutableRawPointer?.self)
      unsafe RawMemory.free(memory)
    }
  }

  public static func makeChunk() throws(Failure) -> Chunk {
    unsafe Chunk(
      memory: try RawMemory.allocate(stride * (chunkCount + 1), alignment: alignment))
  }

  public mutating func add(_ chunk: Chunk) {
    unsafe chunk.memory.storeBytes(of: firstChunk, as: UnsafeMutableRawPointer?.self)
    unsafe firstChunk = chunk.memory
    for place in 1...Self.chunkCount {
      let cell = unsafe chunk.memory + place * Self.stride
      unsafe cell.storeBytes(of: firstFree, as: UnsafeMutableRawPointer?.self)
      unsafe firstFree = cell
    }
  }

  /// A cell that holds no value, or nil when a chunk must be added first.
  public mutating func take() -> UnsafeMutablePointer<Cell>? {
    guard let cell = unsafe firstFree else { return nil }
    unsafe firstFree = cell.load(as: UnsafeMutableRawPointer?.self)
    // SAFETY: `add` cut the chunk into places of `Cell`'s size and alignment, and a place is on the
    // free list or with one taker, never both.
    return unsafe cell.bindMemory(to: Cell.self, capacity: 1)
  }

  /// Gives a cell back whose value has ended.
  public mutating func giveBack(_ cell: UnsafeMutablePointer<Cell>) {
    let memory = UnsafeMutableRawPointer(cell)
    unsafe memory.storeBytes(of: firstFree, as: UnsafeMutableRawPointer?.self)
    unsafe firstFree = memory
  }
}
