// Compression: noise, plans, stages of quantization, sizes, packed files.
#pragma once

#include "compress/ipq.h"
#include "compress/noise.h"
#include "compress/packed_model.h"
#include "compress/plan.h"
#include "compress/run_noise.h"
#include "compress/size_report.h"
#include "core/safetensors.h"
