// SPDX-License-Identifier: MIT OR Apache-2.0

import CDMACore
import TestSupport
import Testing

@Suite("TablePages")
struct TablePagesTests {
  private func allocate(_ pages: TablePages, size: Int = 4096) -> dmacore_table_page? {
    var page = dmacore_table_page(host: nil, phys: 0)
    let allocator = pages.allocator
    return allocator.allocate(size, &page, allocator.opaque) == 0 ? page : nil
  }

  private func free(_ pages: TablePages, _ page: dmacore_table_page, size: Int = 4096) {
    var page = page
    let allocator = pages.allocator
    allocator.free(&page, size, allocator.opaque)
  }

  @Test func pagesAreAlignedAndFullOfOnes() throws {
    let pages = TablePages(firstPhysical: 0x1_0000_0123)
    let page = try #require(allocate(pages, size: 16384))
    #expect(page.phys == 0x1_0000_0000)
    #expect(UInt(bitPattern: page.host) % 16384 == 0)
    #expect(pages.word(at: page.phys + 16376) == UInt64.max)
    #expect(pages.word(at: page.phys + 16384) == nil)
    free(pages, page, size: 16384)
    #expect(pages.liveCount == 0)
    #expect(pages.misuses.isEmpty)
  }

  @Test func theCountdownFailsWhatComesAfterIt() {
    let pages = TablePages()
    pages.failAfter(2)
    var given = [allocate(pages), allocate(pages)]
    #expect(given.allSatisfy { $0 != nil })
    #expect(allocate(pages) == nil)
    pages.failAfter(nil)
    given.append(allocate(pages))
    #expect(pages.liveCount == 3)
    for case let page? in given { free(pages, page) }
    #expect(pages.liveCount == 0)
  }

  @Test func aWrongFreeIsNotedAndFreesNothing() throws {
    let pages = TablePages()
    let page = try #require(allocate(pages))
    free(pages, page, size: 8192)
    free(pages, dmacore_table_page(host: page.host, phys: page.phys + 4096))
    #expect(pages.misuses.count == 2)
    #expect(pages.liveCount == 1)
    free(pages, page)
    free(pages, page)
    #expect(pages.misuses.count == 3)
  }

  @Test func theAllocatorLivesWhileAPageDoes() throws {
    var pages: TablePages? = TablePages()
    weak let observer = pages
    let allocator = pages!.allocator
    var page = try #require(allocate(pages!))
    pages = nil
    #expect(observer != nil)
    allocator.free(&page, 4096, allocator.opaque)
    #expect(observer == nil)
  }
}
