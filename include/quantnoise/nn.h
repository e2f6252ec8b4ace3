// Networks: modules and what they own, layers, differentiable ops, the tape, and memory on CPU and GPU.
#pragma once

#include "core/arena.h"
#include "core/error.h"
#include "core/log.h"
#include "core/tensor.h"
#include "nn/layers/linear.h"
#include "nn/module.h"
#include "nn/state_dict.h"
#include "ops/device.h"
#include "ops/host_access.h"
#include "ops/ops.h"
