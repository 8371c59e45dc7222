// swift-tools-version: 6.2
// SPDX-License-Identifier: MIT OR Apache-2.0

import PackageDescription

/// `DMACORE_EMBEDDED=1` builds the shipped library, which needs libc alone. Without it the same
/// sources build as full Swift, for tests and sanitizers.
let isEmbedded = Context.environment["DMACORE_EMBEDDED"] == "1"

/// `DMACORE_TIDY=1` leaves the rules of the sources' style and nothing else: they are about text
/// and need none of the core built.
let isTidy = Context.environment["DMACORE_TIDY"] == "1"

/// `DMACORE_INTERNAL_CHECKS=1` checks the invariants of each structure after each change.
let checksInvariants = Context.environment["DMACORE_INTERNAL_CHECKS"] == "1"

let settings: [SwiftSetting] =
  [
    .enableUpcomingFeature("MemberImportVisibility"),
    .strictMemorySafety(),
    // Checks each `@implementation @_cdecl` function against its declaration in include/.
    .enableExperimentalFeature("CImplementation"),
  ]
  + (isEmbedded ? [.enableExperimentalFeature("Embedded")] : [])
  + (checksInvariants ? [.define("DMACORE_INTERNAL_CHECKS")] : [])

/// The shipped library may have 256 KiB. What is called seldom is compiled to be small; functions of
/// such targets that are called for each mapping or access say `@_optimize(speed)`.
let sizeSettings: [SwiftSetting] = isEmbedded ? [.unsafeFlags(["-Osize"])] : []

func core(
  _ name: String, _ dependencies: [Target.Dependency], isSmall: Bool = false
) -> Target {
  .target(
    name: name, dependencies: dependencies,
    swiftSettings: settings + (isSmall ? sizeSettings : []))
}

// In layer order: a target imports targets above it in this list alone.
let coreTargets: [Target] = [
  .target(name: "CDMACore", path: "include", publicHeadersPath: "."),
  .target(name: "CPlatform"),
  core("Primitives", ["CDMACore", "CPlatform"], isSmall: true),
  core("Addressing", ["Primitives"]),
  core("Bounce", ["Addressing", "CPlatform", "Primitives"], isSmall: true),
  core("IOVAAllocation", ["Addressing", "CDMACore", "CPlatform", "Primitives"]),
  core(
    "PageTables", ["Addressing", "CDMACore", "CPlatform", "Primitives"], isSmall: true),
  core("MemoryMap", ["Addressing", "CDMACore", "CPlatform", "Primitives"]),
  core(
    "Domains",
    [
      "Addressing", "Bounce", "CDMACore", "CPlatform", "IOVAAllocation", "MemoryMap",
      "PageTables", "Primitives",
    ], isSmall: true),
  core(
    "Translation",
    ["Addressing", "CDMACore", "CPlatform", "Domains", "MemoryMap", "PageTables", "Primitives"],
    isSmall: true),
  core(
    "Mapping",
    [
      "Addressing", "Bounce", "CDMACore", "CPlatform", "Domains", "IOVAAllocation", "MemoryMap",
      "PageTables", "Primitives",
    ], isSmall: true),
  core(
    "CExports",
    [
      "Addressing", "CDMACore", "Domains", "IOVAAllocation", "Mapping", "MemoryMap",
      "PageTables", "Primitives", "Translation",
    ], isSmall: true),
]

/// A test target: imports are as explicit as in the core, `unsafe` markers are not asked for.
func tests(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
  .testTarget(
    name: name, dependencies: dependencies + ["ReferenceModels", "TestSupport"],
    swiftSettings: [.enableUpcomingFeature("MemberImportVisibility")])
}

let testTargets: [Target] = [
  .target(name: "ReferenceModels", path: "Tests/ReferenceModels"),
  .target(name: "TestSupport", dependencies: ["CDMACore"], path: "Tests/TestSupport"),
  .target(
    name: "MachineSupport",
    dependencies: ["Addressing", "CDMACore", "Domains", "PageTables", "Primitives", "TestSupport"],
    path: "Tests/MachineSupport"),
  tests("TestSupportTests", ["CDMACore"]),
  tests("PrimitivesTests", ["CPlatform", "MachineSupport", "Primitives"]),
  tests("AddressingTests", ["Addressing", "Primitives"]),
  tests("BounceTests", ["Addressing", "Bounce", "Primitives"]),
  tests("IOVAAllocationTests", ["Addressing", "IOVAAllocation", "MachineSupport", "Primitives"]),
  tests("MemoryMapTests", ["Addressing", "CDMACore", "MemoryMap", "Primitives"]),
  tests("PageTablesTests", ["Addressing", "CDMACore", "PageTables", "Primitives"]),
  tests(
    "DomainsTests",
    [
      "Addressing", "Bounce", "CDMACore", "Domains", "IOVAAllocation", "MachineSupport",
      "MemoryMap",
      "PageTables", "Primitives",
    ]),
  tests(
    "MappingTests",
    [
      "Addressing", "Bounce", "CDMACore", "Domains", "MachineSupport", "Mapping", "PageTables",
      "Primitives",
    ]),
  tests(
    "TranslationTests",
    [
      "Addressing", "CDMACore", "Domains", "MachineSupport", "Mapping", "Primitives",
      "Translation",
    ]),
  tests(
    "ModelTests",
    ["Addressing", "CDMACore", "CExports", "IOVAAllocation", "PageTables", "Primitives"]),
]

let tidyTargets: [Target] = [.testTarget(name: "TidyTests")]

let package = Package(
  name: "dmacore",
  products: isTidy ? [] : [.library(name: "dmacore", type: .dynamic, targets: ["CExports"])],
  targets: isTidy ? tidyTargets : coreTargets + (isEmbedded ? [] : testTargets)
)
