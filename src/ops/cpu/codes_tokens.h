// Products of many tokens with matrices of codes, by tables that groups of tokens share.
#pragma once

#include "ops/cpu/codes_variants.h"

namespace qn::cpu {

/// Of fp32, not transposed; for product quantization with codes of up to 8 bits.
void product_by_token_tables(const CodesVariant& variant, const CodeMatmulArgs& args);

}  // namespace qn::cpu
