// SPDX-License-Identifier: MIT OR Apache-2.0

import MachineSupport
import Primitives
import Testing

@Suite("Reporter")
struct ReporterTests {
  @Test func aReportHasALevelAnErrorAnObjectAndOneSentence() {
    let reports = Reports()
    reports.reporter.report(.error, .badAddress, object: "disk") { text in
      text.append("address ")
      text.append(hexadecimal: 0xBEEF)
    }
    reports.reporter.report(.warning, nil, object: "net") { $0.append("slow") }
    #expect(
      reports.all == [
        Reports.Report(level: 0, error: 14, object: "disk", text: "address 0xbeef"),
        Reports.Report(level: 1, error: 0, object: "net", text: "slow"),
      ])
  }

  @Test(arguments: [254, 255, 256, 1000])
  func aTextIsCutAt255Bytes(_ length: Int) {
    let reports = Reports()
    reports.reporter.report(.error, nil, object: "x") { text in
      for _ in 0..<length { text.append("a") }
    }
    #expect(reports.all.map(\.text.utf8.count) == [min(length, 255)])
  }

  @Test func anObjectThatEndsEarlyIsNamed() {
    let reports = Reports()
    reports.reporter.reportEarlyDestroy(object: "iommu")
    #expect(
      reports.all == [
        Reports.Report(
          level: 1, error: 16, object: "iommu",
          text: "destroyed while other objects hold it; it ends with the last of them")
      ])
  }

  @Test func withoutACallbackNothingIsComposed() {
    var isComposed = false
    Reporter(callback: nil, opaque: nil).report(.error, nil, object: "x") { _ in
      isComposed = true
    }
    #expect(!isComposed)
  }
}
