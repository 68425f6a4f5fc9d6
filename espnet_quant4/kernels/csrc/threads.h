// A pool of threads that sleep between calls and meet at barriers within one.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>

namespace quant4 {

// Where the threads of one group wait for each other. Spins, since waits within a call are short;
// gives the processor away when they are not.
class Barrier {
  public:
    // Returns when `size` threads have called it.
    void wait(int size);

  private:
    std::atomic<int> arrived_{0};
    std::atomic<uint32_t> round_{0};
};

// Runs task(0) .. task(threads - 1) at the same time, task(0) on the calling thread, and returns
// when all are done. Where the pool is taken by another caller, or threads cannot be had, fewer
// are used: `task` gets the number in its second argument. A task must not throw.
void run_parallel(int threads, const std::function<void(int index, int threads)>& task);

}  // namespace quant4
