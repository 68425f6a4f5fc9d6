#include "threads.h"

#include <sched.h>
#include <unistd.h>

#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace quant4 {
namespace {

inline void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

constexpr int kSpins = 4000;
constexpr int kMostThreads = 256;

class Pool {
  public:
    // Whether it ran; false where another caller is using the pool.
    bool run(int threads, const std::function<void(int, int)>& task) {
        std::unique_lock<std::mutex> mine(callers_, std::try_to_lock);
        if (!mine.owns_lock()) return false;
        while (static_cast<int>(workers_.size()) < threads - 1) {
            try {
                const int index = static_cast<int>(workers_.size()) + 1;
                workers_.emplace_back([this, index, seen = round_] { work(index, seen); });
                workers_.back().detach();
            } catch (const std::system_error&) {
                threads = static_cast<int>(workers_.size()) + 1;
                break;
            }
        }
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            task_ = &task;
            threads_ = threads;
            left_.store(threads - 1, std::memory_order_relaxed);
            ++round_;
        }
        wake_.notify_all();
        task(0, threads);
        for (int spin = 0; left_.load(std::memory_order_acquire) != 0; ++spin) {
            if (spin < kSpins) {
                pause();
            } else {
                sched_yield();
            }
        }
        return true;
    }

  private:
    void work(int index, uint64_t seen) {
        for (;;) {
            const std::function<void(int, int)>* task;
            int threads;
            {
                std::unique_lock<std::mutex> lock(mutex_);
                wake_.wait(lock, [&] { return round_ != seen; });
                seen = round_;
                task = task_;
                threads = threads_;
            }
            if (index >= threads) continue;
            (*task)(index, threads);
            left_.fetch_sub(1, std::memory_order_release);
        }
    }

    std::mutex callers_, mutex_;
    std::condition_variable wake_;
    std::vector<std::thread> workers_;
    const std::function<void(int, int)>* task_ = nullptr;
    int threads_ = 0;
    uint64_t round_ = 0;
    std::atomic<int> left_{0};
};

// Threads do not survive a fork: a child makes a pool of its own. Pools are never destroyed, since
// their threads may outlive static destructors.
Pool& pool() {
    static std::mutex mutex;
    static Pool* current = nullptr;
    static pid_t owner = -1;
    const std::lock_guard<std::mutex> lock(mutex);
    if (owner != getpid()) {
        owner = getpid();
        current = new Pool;
    }
    return *current;
}

}  // namespace

void Barrier::wait(int size) {
    if (size <= 1) return;
    const uint32_t round = round_.load(std::memory_order_relaxed);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size) {
        arrived_.store(0, std::memory_order_relaxed);
        round_.store(round + 1, std::memory_order_release);
        return;
    }
    for (int spin = 0; round_.load(std::memory_order_acquire) == round; ++spin) {
        if (spin < kSpins) {
            pause();
        } else {
            sched_yield();
        }
    }
}

void run_parallel(int threads, const std::function<void(int, int)>& task) {
    if (threads > kMostThreads) threads = kMostThreads;
    if (threads <= 1 || !pool().run(threads, task)) task(0, 1);
}

}  // namespace quant4
