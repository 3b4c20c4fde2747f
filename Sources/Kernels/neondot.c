#include "table.h"

#if defined(__aarch64__)
#include <arm_neon.h>

#pragma clang attribute push(__attribute__((target("dotprod"))), apply_to = function)
#define NEON_DOT 1
#include "simd_neon.h"

#include "path.inc.h"
#pragma clang attribute pop

#define ENTRY(name) .name = v_##name,
const trips_table trips_table_neondot = {TRIPS_EACH_KERNEL(ENTRY)};
#endif
