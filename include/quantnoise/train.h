// Training: ranks, optimizers, learning rates, updates.
#pragma once

#include "comm/communicator.h"
#include "train/lr_schedule.h"
#include "train/optimizer.h"
#include "train/task.h"
#include "train/update.h"
