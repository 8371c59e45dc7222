// SPDX-License-Identifier: MIT OR Apache-2.0

import CDMACore
import Primitives

// Theory of operation: drivers and their devices.
//
// 1. Concepts
// A bind configures a device and lets a driver probe it; `driver.h` has the diagram of a device's
// states. A bind that needs what is not there yet is deferred, and tried again when something came.
//
// 2. Implementation
// 2.1 Who moves a device out of a resting state (unbound, deferred, bound) does so under the lock of
// the system's bindings, and has the device to itself until it puts it into the next: probing and
// removing refuse everybody else. So configuring and the driver's functions run without a lock. Only
// destroying the device is not refused: then who has it to itself ends it.
// 2.2 What waits is a list through the devices. A device on it is not held: it leaves the list before it
// ends.
// 2.3 A retry goes once over what waits, and once more when something came meanwhile, which may be what
// another one waits for. So it ends. One thread at a time retries: what comes on another, or in a function
// of a driver that the retry calls, it only notes, so that retries do not nest in each other. Who probes
// looks for what came while probe missed something; a driver that makes such an event itself before it
// gives up would be asked for ever.
//
// 3. Locking
// One lock a system (rank 11), in which no other is taken.

/// What drives devices, checked.
@safe
public struct Driver {
  let descriptor: UnsafePointer<dmacore_driver>
  let wish: DefaultType?

  /// - Throws: `invalidArgument`.
  public init(
    _ descriptor: UnsafePointer<dmacore_driver>, _ checked: dmacore_driver
  ) throws(Failure) {
    guard unsafe checked.flags & ~DMACORE_DRIVER_MANAGES_DMA.rawValue == 0,
      unsafe checked.name != nil && Name.fits(checked.name) && checked.probe != nil
    else { throw .invalidArgument }
    unsafe self.descriptor = descriptor
    wish = unsafe try DefaultType(checking: checked.domain_type)
  }

  var managesDMA: Bool {
    unsafe descriptor.pointee.flags & DMACORE_DRIVER_MANAGES_DMA.rawValue != 0
  }

  var name: UnsafePointer<CChar> { unsafe descriptor.pointee.name }

  func probe(_ device: UnsafeMutablePointer<Device>) throws(Failure) {
    ThreadRules.willCallBack()
    let result = unsafe descriptor.pointee.probe(OpaquePointer(device), descriptor.pointee.opaque)
    guard result != 0 else { return }
    // No errno is above 4095.
    throw result < 0 && result >= -4095 ? Failure(code: 0 &- result) : .invalidArgument
  }

  func remove(_ device: UnsafeMutablePointer<Device>) {
    ThreadRules.willCallBack()
    unsafe descriptor.pointee.remove?(OpaquePointer(device), descriptor.pointee.opaque)
  }
}

/// What a device has to do with drivers. Guarded by the lock of the system's bindings.
@safe
struct Binding {
  /// The values are those of `driver.h`.
  enum State: UInt32 {
    case unbound = 0
    case deferred = 1
    case probing = 2
    case bound = 3
    case removing = 4
  }

  var state = State.unbound
  var driver: Driver? = nil
  /// Whether the device was destroyed, so that it ends when it comes to rest.
  var isGone = false
  /// The next device that waits.
  var next: UnsafeMutablePointer<Device>? = nil
}

/// The devices of a system whose binds are deferred, in the order in which they came. Locked, rank 11.
@safe
struct Bindings: ~Copyable {
  // Not private: a debug build by files cannot link the type of a private property then.
  @safe
  struct State: ~Copyable {
    var first: UnsafeMutablePointer<Device>? = nil
    /// Undefined while there is none.
    var last: UnsafeMutablePointer<Device>? = nil
    var count = 0
    /// How often something came that a deferred bind may wait for.
    var events: UInt64 = 0
    /// Whether a thread retries, and how many it has to try yet.
    var isRetrying = false
    var left = 0
  }

  private let state: Guarded<State>

  init() throws(Failure) {
    state = try Guarded<State>(.bindings) { () throws(Failure) in State() }
  }

  /// The result of `body`, which has all devices' bindings to itself.
  func withLock<Result>(_ body: (inout State) -> Result) -> Result { state.withLock(body) }
}

extension Bindings.State {
  mutating func noteEvent() {
    events &+= 1
    left = count
  }

  mutating func add(_ device: UnsafeMutablePointer<Device>) {
    unsafe device.pointee.member.pointee.binding.next = nil
    if unsafe first == nil {
      unsafe first = device
    } else {
      unsafe last!.pointee.member.pointee.binding.next = device
    }
    unsafe last = device
    count &+= 1
  }

  mutating func remove(_ device: UnsafeMutablePointer<Device>) {
    let next = unsafe device.pointee.member.pointee.binding.next
    if unsafe first == device {
      unsafe first = next
    } else {
      var link = unsafe first
      while let other = unsafe link, unsafe other.pointee.member.pointee.binding.next != device {
        unsafe link = other.pointee.member.pointee.binding.next
      }
      unsafe link!.pointee.member.pointee.binding.next = next
      if unsafe next == nil { unsafe last = link }
    }
    count &-= 1
  }
}

extension System {
  /// Tries again what waits, because something came: an IOMMU, or a driver to its device.
  ///
  /// The caller holds the system, which what is called back may let go of.
  func retryDeferred() {
    let isRetrying = bindings.withLock { state in
      state.noteEvent()
      defer { state.isRetrying = true }
      return state.isRetrying
    }
    if isRetrying { return }
    while let device = unsafe takeDeferred() {
      if (try? unsafe Device.probe(device, isRetry: true)) != nil {
        bindings.withLock { $0.noteEvent() }
      }
      unsafe Box.letGo(device)
    }
  }

  /// The next that is to be tried. When there is none this retry has ended.
  private func takeDeferred() -> UnsafeMutablePointer<Device>? {
    unsafe bindings.withLock { state -> UnsafeMutablePointer<Device>? in
      guard state.left > 0, let device = unsafe state.first else {
        state.isRetrying = false
        return nil
      }
      state.left &-= 1
      unsafe state.remove(device)
      unsafe device.pointee.member.pointee.binding.state = .probing
      unsafe Box.hold(device)
      return unsafe device
    }
  }
}

// What drivers are told of a device is the address of its cell, which these take.
extension Device {
  /// Gives a device to a driver.
  ///
  /// - Throws: `busy` when it has one or has mappings, `tryAgain` when the bind is deferred, what
  ///   `configure` throws, and what the driver's probe returns.
  public static func bind(
    _ device: UnsafeMutablePointer<Device>, to driver: Driver
  ) throws(Failure) {
    unsafe Box.hold(device)
    defer { unsafe Box.letGo(device) }
    let system = unsafe device.pointee.system
    let isFree = unsafe system.pointee.bindings.withLock { _ in
      let member = unsafe device.pointee.member
      guard unsafe member.pointee.binding.state == .unbound else { return false }
      unsafe member.pointee.binding.state = .probing
      unsafe member.pointee.binding.driver = driver
      return true
    }
    guard isFree else { throw .busy }
    try unsafe probe(device, isRetry: false)
    unsafe system.pointee.retryDeferred()
  }

  /// Configures and probes a device in the state for that, and brings it into the next. What a retry
  /// fails with is reported.
  ///
  /// - Throws: as `bind`, and `noDevice` when the device was destroyed meanwhile.
  fileprivate static func probe(
    _ device: UnsafeMutablePointer<Device>, isRetry: Bool
  ) throws(Failure) {
    let driver = unsafe device.pointee.member.pointee.binding.driver!
    while true {
      let events = unsafe device.pointee.system.pointee.bindings.withLock { $0.events }
      let failure = unsafe attempt(device, driver)
      if let failure, failure != .tryAgain {
        // While the driver's name is there for certain.
        if isRetry { unsafe device.pointee.reportFailedBind(failure, by: driver) }
        unsafe rest(device)
        throw failure
      }
      switch unsafe settle(device, failure == nil ? .bound : .deferred, unlessAfter: events) {
      case .bound: return
      case .deferred: throw .tryAgain
      case .probing: continue
      case .unbound, .removing:
        if failure == nil { unsafe finish(device) } else { unsafe rest(device) }
        throw .noDevice
      }
    }
  }

  /// Returns what fails, and then has undone the rest.
  private static func attempt(
    _ device: UnsafeMutablePointer<Device>, _ driver: Driver
  ) -> Failure? {
    do throws(Failure) { try unsafe device.pointee.configure(for: driver) } catch { return error }
    do throws(Failure) { try unsafe driver.probe(device) } catch {
      unsafe device.pointee.unconfigure(from: driver)
      return error
    }
    return nil
  }

  /// Brings a device that was probed into the next state, which it returns: removing, if it was
  /// destroyed meanwhile; probing, as before, when it would be deferred and something came after the
  /// event that is given, which may be what it missed.
  private static func settle(
    _ device: UnsafeMutablePointer<Device>, _ next: Binding.State, unlessAfter events: UInt64
  ) -> Binding.State {
    unsafe device.pointee.system.pointee.bindings.withLock { state in
      let member = unsafe device.pointee.member
      var next = next
      if unsafe member.pointee.binding.isGone {
        next = .removing
      } else if next == .deferred {
        if state.events != events { return .probing }
        unsafe state.add(device)
      }
      unsafe member.pointee.binding.state = next
      return next
    }
  }

  /// Lets others have a device that the caller had to itself; or ends it, if it was destroyed.
  private static func rest(_ device: UnsafeMutablePointer<Device>) {
    let isGone = unsafe device.pointee.system.pointee.bindings.withLock { _ in
      unsafe device.pointee.member.pointee.binding.state = .unbound
      return unsafe device.pointee.member.pointee.binding.isGone
    }
    if isGone { unsafe end(device) }
  }

  private static func end(_ device: UnsafeMutablePointer<Device>) {
    unsafe device.pointee.endMemory()
    unsafe device.pointee.leaveGroup()
    unsafe Box.letGo(device)
  }

  /// Takes the device from its driver.
  ///
  /// - Throws: `notFound` when it has none, `busy` while probe or remove runs.
  public static func unbind(_ device: UnsafeMutablePointer<Device>) throws(Failure) {
    let last = unsafe leave(device, forGood: false)
    switch last {
    case .unbound: throw .notFound
    case .probing, .removing: throw .busy
    case .deferred: break
    case .bound: unsafe finish(device)
    }
  }

  /// Ends the device for its driver and for whoever made it: undoes what is left mapped and takes it out
  /// of its group. Views of the device may live on, and reach nothing.
  ///
  /// No mapping call is under way. While probe or remove runs, this is done after that.
  public static func close(_ device: UnsafeMutablePointer<Device>) {
    // Until `end`.
    unsafe Box.hold(device)
    switch unsafe leave(device, forGood: true) {
    case .unbound, .deferred: unsafe end(device)
    case .bound: unsafe finish(device)
    case .probing, .removing: break
    }
  }

  /// Takes the device out of the state that it rests in, if it does. Returns that state.
  private static func leave(
    _ device: UnsafeMutablePointer<Device>, forGood: Bool
  ) -> Binding.State {
    unsafe device.pointee.system.pointee.bindings.withLock { state in
      let member = unsafe device.pointee.member
      let last = unsafe member.pointee.binding.state
      if forGood { unsafe member.pointee.binding.isGone = true }
      switch last {
      case .unbound, .probing, .removing: break
      case .deferred:
        unsafe state.remove(device)
        unsafe member.pointee.binding.state = .unbound
      case .bound: unsafe member.pointee.binding.state = .removing
      }
      return last
    }
  }

  /// Has the driver of a device give it back. Whoever calls this may not use the device afterwards,
  /// unless it holds it.
  private static func finish(_ device: UnsafeMutablePointer<Device>) {
    let driver = unsafe device.pointee.member.pointee.binding.driver!
    unsafe driver.remove(device)
    unsafe device.pointee.unconfigure(from: driver)
    unsafe rest(device)
  }

  // MARK: - Configuring

  /// Sees to it that the device's addresses mean something, and that they go on to mean it.
  ///
  /// - Throws: `busy` when somebody has mapped something, which would be taken for the driver's;
  ///   `noDevice` when nothing could contain a device that is not trusted, `tryAgain` until its IOMMU is
  ///   there, and what `Group.use` throws.
  private func configure(for driver: Driver) throws(Failure) {
    guard mappings.totals.count == 0 else { throw .busy }
    if let iommu = unsafe iommu {
      guard unsafe iommu.pointee.isThere else { throw .tryAgain }
    } else if isUntrusted {
      throw .noDevice
    }
    if !driver.managesDMA { try Group.use(self, for: driver) }
  }

  /// Undoes what the driver has left, and what `configure` did, whatever the driver's flags say by now.
  private func unconfigure(from driver: Driver) {
    endMappings(of: driver)
    unsafe group.pointee.unuseOfDriver(member)
  }

  /// Where the device is in its life, and the driver that it has to do with.
  public var bindingState: (state: UInt32, driver: UnsafePointer<dmacore_driver>?) {
    unsafe system.pointee.bindings.withLock { _ in
      let state = unsafe member.pointee.binding.state
      return unsafe (
        state.rawValue, state == .unbound ? nil : member.pointee.binding.driver?.descriptor
      )
    }
  }

  /// Reports that a driver's demand on the group's default domain is against another device's.
  func reportContradiction(
    _ failure: Failure, to other: UnsafeMutablePointer<Device>, by driver: Driver
  ) {
    unsafe system.pointee.reporter.report(.error, failure, object: name) { text in
      text.append("driver ")
      unsafe text.append(cString: driver.name)
      text.append(
        driver.wish?.kind == .identity
          ? " asks for an identity domain, and " : " asks for another default domain, and ")
      unsafe text.append(cString: other.pointee.name)
      text.append(
        failure == .notPermitted
          ? ", which has the same, is not trusted" : ", which has the same, uses the one that is")
    }
  }

  fileprivate func reportFailedBind(_ failure: Failure, by driver: Driver) {
    unsafe system.pointee.reporter.report(.error, failure, object: name) { text in
      text.append("the deferred bind to driver ")
      unsafe text.append(cString: driver.name)
      text.append(" failed")
    }
  }
}
