// SPDX-License-Identifier: MIT OR Apache-2.0

import TestSupport
import Testing

@Suite("Mappings and views against a model")
struct MappingModelTests {
  /// The model knows nothing of paths but how much around a mapping the device reaches, so that all
  /// paths give the same results.
  @Test(arguments: MachinePath.allCases)
  func everyStepGivesWhatAModelOfBytesGives(_ path: MachinePath) throws {
    let maker = MappingStepMaker()
    try explore("mappings, \(path)", steps: RunSettings.steps(2_500)) {
      try MappingWorld(path)
    } by: { generator in
      maker.step(&generator)
    }
  }
}
