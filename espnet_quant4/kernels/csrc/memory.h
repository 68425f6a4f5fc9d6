// Memory that vector loads like, and a scratch area that a thread keeps between calls.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

namespace quant4 {

constexpr int64_t kAlignment = 64;

struct Free {
    void operator()(void* p) const { std::free(p); }
};

template <class T>
using Buffer = std::unique_ptr<T[], Free>;

// Uninitialized; throws std::bad_alloc.
template <class T>
Buffer<T> allocate(int64_t count) {
    if (count < 0 || count > (int64_t{1} << 46)) throw std::bad_alloc();
    const int64_t bytes = (count * static_cast<int64_t>(sizeof(T)) + kAlignment) / kAlignment * kAlignment;
    void* p = nullptr;
    if (posix_memalign(&p, kAlignment, static_cast<size_t>(bytes)) != 0) throw std::bad_alloc();
    return Buffer<T>(static_cast<T*>(p));
}

// Memory for the packed weights of one model: pieces of large blocks on huge pages, which a stream of
// weights from main memory runs through half as fast again (fewer page walks).
class WeightMemory {
  public:
    // What is likely to be asked for in all; blocks are of this size.
    explicit WeightMemory(int64_t expected_bytes = 0) : expected_(expected_bytes) {}

    uint8_t* take(int64_t bytes) {
        bytes = (bytes + kAlignment - 1) / kAlignment * kAlignment;
        if (blocks_.empty() || used_ + bytes > size_) {
            size_ = std::max(bytes, expected_);
            used_ = 0;
            blocks_.push_back(allocate_weights(size_));
        }
        uint8_t* piece = blocks_.back().get() + used_;
        used_ += bytes;
        return piece;
    }

  private:
    static Buffer<uint8_t> allocate_weights(int64_t bytes) {
        constexpr int64_t huge_page = 1 << 21;
        if (bytes < huge_page) return allocate<uint8_t>(bytes);
        void* p = nullptr;
        if (posix_memalign(&p, huge_page, static_cast<size_t>(bytes)) != 0) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
        madvise(p, static_cast<size_t>(bytes), MADV_HUGEPAGE);
#endif
        return Buffer<uint8_t>(static_cast<uint8_t*>(p));
    }

    int64_t expected_, size_ = 0, used_ = 0;
    std::vector<Buffer<uint8_t>> blocks_;
};

// Hands out pieces of one block. Measure first (base null), then take them again from a block.
class Arena {
  public:
    explicit Arena(char* base) : base_(base) {}
    template <class T>
    T* take(int64_t count) {
        T* piece = base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + used_);
        used_ += (count * static_cast<int64_t>(sizeof(T)) + kAlignment - 1) / kAlignment * kAlignment;
        return piece;
    }
    int64_t used() const { return used_; }

  private:
    char* base_;
    int64_t used_ = 0;
};

// A block of at least this size that the calling thread keeps; large ones are not kept.
class Scratch {
  public:
    explicit Scratch(int64_t bytes) {
        thread_local Buffer<char> kept;
        thread_local int64_t kept_bytes = 0;
        if (bytes > kKeep) {
            own_ = allocate<char>(bytes);
            data_ = own_.get();
            return;
        }
        if (bytes > kept_bytes) {
            kept_bytes = 0;
            kept = allocate<char>(bytes);
            kept_bytes = bytes;
        }
        data_ = kept.get();
    }
    char* data() const { return data_; }

  private:
    static constexpr int64_t kKeep = 1 << 20;
    Buffer<char> own_;
    char* data_;
};

}  // namespace quant4
