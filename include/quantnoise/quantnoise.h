// All of the library that other programs build on. docs/library.md says which names are kept stable; what else is
// installed under quantnoise/detail may change.
#pragma once

#include <quantnoise/compress.h>
#include <quantnoise/nn.h>
#include <quantnoise/train.h>
