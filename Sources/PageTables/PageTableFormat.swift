// SPDX-License-Identifier: MIT OR Apache-2.0

import Addressing
import Primitives

/// What one word of a table says.
public enum TableEntry: Equatable, Sendable {
  /// Nothing is mapped here.
  case empty
  /// A table of the next lower level lies at this address.
  case table(PhysicalAddress)
  /// The word maps the whole span of its level.
  case leaf(TableLeaf)
  /// The word has bits that hardware demands to be otherwise: a walk faults here.
  case reserved
}

/// What a word says that maps the span of its level.
public struct TableLeaf: Equatable, Sendable {
  /// Where the span of this word leads, also of a word in the midst of a run.
  public let output: PhysicalAddress
  /// What is permitted, and what kind of memory it is.
  public let access: Access
  /// 2^order words that follow each other, the first at a multiple of their number, are one leaf: a
  /// run. 0 for a word that is a leaf by itself.
  public let order: Int

  public init(_ output: PhysicalAddress, _ access: Access, order: Int = 0) {
    self.output = output
    self.access = access
    self.order = order
  }
}

/// How wide the addresses of a table are, and how many levels it has.
public struct PageTableGeometry: Equatable, Sendable {
  /// Levels of a table in which nothing is mapped.
  public let levels: Int
  /// Levels that it may grow to. As many as `levels`, but for formats whose root says its level.
  public let levelsMax: Int
  /// Bits of input that the table resolves. The bits above are 0, or those of a signed input copies of
  /// the highest of these.
  public let inputBits: Int
  public let isSigned: Bool
  public let outputBits: Int

  public init(
    levels: Int, levelsMax: Int? = nil, inputBits: Int, isSigned: Bool = false, outputBits: Int
  ) {
    self.levels = levels
    self.levelsMax = levelsMax ?? levels
    self.inputBits = inputBits
    self.isSigned = isSigned
    self.outputBits = outputBits
  }

  var inputMask: UInt64 { UInt64.max &>> UInt64(64 &- inputBits) }
  var outputMask: UInt64 { UInt64.max &>> UInt64(64 &- outputBits) }

  /// The highest input that is not negative.
  var lastLowInput: UInt64 { isSigned ? inputMask &>> 1 : inputMask }

  /// The offset in the tree of an input; nil if that is too wide, or not canonical.
  func offset(of input: UInt64) -> UInt64? {
    guard input <= lastLowInput || (isSigned && input >= ~lastLowInput) else { return nil }
    return input & inputMask
  }

  /// The input of an offset.
  func input(_ offset: UInt64) -> UInt64 {
    offset > lastLowInput ? offset | ~inputMask : offset
  }
}

/// What a table is made for, before a format has looked at it; 0 is for what the format takes then.
public struct PageTableOptions: Equatable, Sendable {
  public var levels = 0
  public var inputBits = 0
  public var outputBits = 0
  public var features: PageTableFeatures = []
  /// The smallest leaf, for formats that have it in several sizes.
  var granule = Granule(shift: 12)
  /// Whether they are those of the second stage, for formats that are much the same in both.
  var isSecondStage = false

  public init(
    levels: Int = 0, inputBits: Int = 0, outputBits: Int = 0, features: PageTableFeatures = []
  ) {
    self.levels = levels
    self.inputBits = inputBits
    self.outputBits = outputBits
    self.features = features
  }
}

/// What hardware can do that not all of its kind can. The values are those of `pagetable.h`.
public struct PageTableFeatures: OptionSet, Sendable {
  public let rawValue: UInt32
  public init(rawValue: UInt32) { self.rawValue = rawValue }

  /// Leaves can be made coherent with the caches of processors, or not, one by one.
  public static var coherence: PageTableFeatures { PageTableFeatures(rawValue: 1) }
  /// Hardware notes in a leaf that it was written through.
  public static var dirty: PageTableFeatures { PageTableFeatures(rawValue: 2) }
  /// Runs of words can be marked as one leaf.
  public static var runs: PageTableFeatures { PageTableFeatures(rawValue: 4) }
  /// Inputs are signed numbers.
  public static var signedInput: PageTableFeatures { PageTableFeatures(rawValue: 8) }
  /// A leaf can say what kind of memory it leads to.
  public static var memoryTypes: PageTableFeatures { PageTableFeatures(rawValue: 16) }
}

/// A radix I/O page-table format: how one table word at one level is written and read.
///
/// A format never touches memory. It turns words into meanings and meanings into words, so that
/// the same format can serve tables that this library owns and tables that somebody else does. A value
/// of it is what was chosen for one table: widths and features.
///
/// Level 0 holds the smallest leaves; the root is at the highest level. Words are little-endian 64-bit
/// numbers, of which 0 is empty.
protocol PageTableFormat: Sendable {
  /// Size of the smallest leaf, and of a table page.
  var granule: Granule { get }
  /// Bits of input that one level resolves. The root may resolve more, or fewer.
  var indexBits: Int { get }
  /// Whether all words of a run are the same, made from the output of its first; otherwise each is made
  /// from the output of its own span.
  var repeatsLeaf: Bool { get }

  /// - Throws: `invalidArgument` for a table that the format does not have, `notSupported` for a
  ///   feature that it does not have.
  init(_ options: PageTableOptions) throws(Failure)

  var geometry: PageTableGeometry { get }

  /// The leaves of a level: the bit `order` is set if 2^order words can be one. 0 if there are none.
  func leafOrders(at level: Int) -> UInt32

  /// Whether a leaf can permit exactly this, and can say all else that it says.
  func canExpress(_ access: Access) -> Bool

  /// What the words of a leaf have in common, for what can be expressed.
  func attributes(_ access: Access, order: Int, at level: Int) -> UInt64

  /// The word of a leaf: of its output and its attributes.
  func leaf(_ output: PhysicalAddress, attributes: UInt64) -> UInt64

  /// The word that leads to a table on `level`, which is one below the word's.
  func table(_ next: PhysicalAddress, at level: Int) -> UInt64

  /// - Parameter index: where in its table the word is.
  func decode(_ word: UInt64, at level: Int, index: Int) -> TableEntry

  /// The words that are made mostly, as numbers.
  var plainWords: PlainWords { get }

  /// Whether hardware notes in leaves that they were written through.
  var notesDirty: Bool { get }

  /// Whether the leaf in a word was written through; true of every leaf where that is not noted.
  func isDirty(_ word: UInt64) -> Bool

  /// The word of the same leaf, written through or not. The same word where that is not noted.
  func settingDirty(_ word: UInt64, _ isDirty: Bool) -> UInt64

  // What is asked besides of the words of foreign tables (`TableWalk.swift`).

  /// What the word of a table forbids to all that it leads to, because hardware combines the words of
  /// all levels: bits that the format chooses, and a bit that is set forbids something. 0 for most.
  func restrictions(ofTable word: UInt64) -> UInt64

  /// What the word of a leaf permits under the restrictions of all tables that lead there.
  ///
  /// - Parameter access: what it says by itself.
  func access(ofLeaf word: UInt64, _ access: Access, restrictions: UInt64) -> Access

  /// The table that a word leads to past at least one level, and its level. `decode` takes such a word for
  /// reserved: the library makes none.
  func farTable(_ word: UInt64, at level: Int) -> (PhysicalAddress, level: Int)?

  /// What hardware says of a word that `decode` takes for reserved.
  func reason(ofReserved word: UInt64, at level: Int) -> WalkFault.Reason
}

extension PageTableFormat {
  /// The bits of an input address below the index of this level: the exponent of its span.
  func shift(at level: Int) -> Int { granule.shift &+ level &* indexBits }

  /// Words of a table, but for the root's.
  var entryCount: Int { 1 &<< indexBits }

  /// The bytes of input that one entry of this level covers, less one. An entry above the root may cover
  /// all 64 bits.
  func spanMask(at level: Int) -> UInt64 {
    let bits = shift(at: level)
    return bits >= 64 ? UInt64.max : (1 &<< UInt64(truncatingIfNeeded: bits)) &- 1
  }

  /// The bytes of input that a leaf of 2^order entries of this level covers, less one.
  func runMask(at level: Int, order: Int) -> UInt64 {
    let bits = shift(at: level) &+ order
    return bits >= 64 ? UInt64.max : (1 &<< UInt64(truncatingIfNeeded: bits)) &- 1
  }
}
