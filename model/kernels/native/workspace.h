// Memory that stays from call to call: fresh pages would cost a tenth of the vocabulary loss. One walk at a time.
#pragma once
#include <sys/mman.h>
#include <cstdlib>
#include <mutex>
#include <new>

namespace distillery {

constexpr size_t HUGE_PAGE = 2 << 20;

// Held while the buffers below are in use.
inline std::mutex& workspace_mutex() {
  static std::mutex mutex;
  return mutex;
}

struct Buffer {
  struct Block {
    void* data = nullptr;
    size_t bytes = 0;
  };
  void* data;
  Buffer(int slot, size_t bytes) {
    static Block blocks[8];
    Block& block = blocks[slot];
    if (block.bytes < bytes) {
      std::free(block.data);
      const size_t rounded = (bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
      block = {std::aligned_alloc(HUGE_PAGE, rounded), rounded};
      if (!block.data) {
        block.bytes = 0;
        throw std::bad_alloc();
      }
      madvise(block.data, rounded, MADV_HUGEPAGE);
    }
    data = block.data;
  }
  template <class T>
  T* as() const {
    return static_cast<T*>(data);
  }
};

}  // namespace distillery
