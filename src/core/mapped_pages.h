// Pages from the system itself.
#pragma once

#include <cstddef>

namespace qn {

inline constexpr size_t kHugePage = size_t{2} << 20;

/// `bytes` bytes of zeros at a multiple of `alignment`; both are multiples of the page size. Memory is taken when it is
/// first written to, in huge pages where the system has them: kernels that go down the columns of a matrix touch more
/// small pages than the processor remembers addresses of. Throws std::bad_alloc.
void* map_zeros(size_t bytes, size_t alignment);

/// Gives back all that one call of map_zeros() returned.
void unmap(void* pages, size_t bytes);

}  // namespace qn
