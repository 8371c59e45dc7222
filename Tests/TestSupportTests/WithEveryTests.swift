// SPDX-License-Identifier: MIT OR Apache-2.0

import TestSupport
import Testing

@Suite("withEvery")
struct WithEveryTests {
  @Test func everyValueIsVisitedInOrder() throws {
    var visited: [Int] = []
    try withEvery("number", in: 1...4) { visited.append($0) }
    #expect(visited == [1, 2, 3, 4])
  }

  @Test func anErrorTellsTheValuesThatLedToIt() {
    let error = #expect(throws: Divergence.self) {
      try withEvery("row", in: 1...3) { row in
        try withEvery("column", in: 1...3) { column in
          try demand(row * column != 6, "six")
        }
      }
    }
    #expect(error?.description == "row = 2: column = 3: six")
  }

  @Test func everySequenceIsVisitedOnce() throws {
    var visited: [[Int]] = []
    try withEverySequence(of: [0, 1, 2], length: 2) { visited.append($0) }
    #expect(visited.count == 9)
    #expect(Set(visited).count == 9)
    #expect(visited.allSatisfy { $0.count == 2 })
  }

  @Test func thereIsOneSequenceOfNoValues() throws {
    var count = 0
    try withEverySequence(of: [1], length: 0) { _ in count += 1 }
    #expect(count == 1)
    try withEverySequence(of: [Int](), length: 2) { _ in count += 1 }
    #expect(count == 1)
  }
}
