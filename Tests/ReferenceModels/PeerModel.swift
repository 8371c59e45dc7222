// SPDX-License-Identifier: MIT OR Apache-2.0

/// The naive twin of routes between devices, by the words of `peer.h` and with sets.
public struct PeerModel {
  public enum Passing { case nothing, below, across }

  public struct Bridge {
    public var parent: Int?
    public var isolates: Bool
    public var passing: Passing

    public init(parent: Int?, isolates: Bool, passing: Passing) {
      self.parent = parent
      self.isolates = isolates
      self.passing = passing
    }
  }

  public struct Device {
    public var bridge: Int?
    /// Of a function that shares its slot with others: which.
    public var slot: Int?
    public var isUntrusted: Bool

    public init(bridge: Int?, slot: Int?, isUntrusted: Bool) {
      self.bridge = bridge
      self.slot = slot
      self.isUntrusted = isUntrusted
    }
  }

  public enum Route: UInt32 { case unreachable, busAddress, hostBridge }

  public var bridges: [Bridge] = []
  public var devices: [Int: Device] = [:]

  public init() {}

  private func chain(_ device: Device) -> [Int] {
    Array(
      sequence(first: device.bridge) { .some($0.flatMap { bridges[$0].parent }) }
        .prefix { $0 != nil }.compactMap { $0 })
  }

  public func route(from client: Int, to provider: Int) -> (Route, distance: UInt32) {
    if client == provider { return (.busAddress, 0) }
    let (one, other) = (devices[client]!, devices[provider]!)
    if !one.isUntrusted, let slot = one.slot, slot == other.slot, one.bridge == other.bridge {
      return (.busAddress, 0)
    }
    let (up, down) = (chain(one), chain(other))
    let shared = Set(up).intersection(down)
    let apart = Set(up).symmetricDifference(down)
    if !one.isUntrusted, let common = up.first(where: shared.contains) {
      let way = apart.union([common])
      if way.allSatisfy({ !bridges[$0].isolates }) { return (.busAddress, UInt32(way.count)) }
    }
    guard let top = up.last, let otherTop = down.last else { return (.unreachable, 0) }
    let passing = (bridges[top].passing, bridges[otherTop].passing)
    let passes = top == otherTop ? passing.0 != .nothing : passing == (.across, .across)
    return passes ? (.hostBridge, UInt32(up.count + down.count)) : (.unreachable, 0)
  }
}
