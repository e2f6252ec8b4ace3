// What the processor at run time can do beyond what the program was compiled for.
#pragma once

namespace qn {

/// True when the processor multiplies bf16 matrices in hardware (AVX512_BF16 or AMX_BF16) and the system saves the
/// registers that this needs.
bool cpu_multiplies_bf16();

}  // namespace qn
