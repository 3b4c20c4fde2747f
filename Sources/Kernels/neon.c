#include "table.h"

#if defined(__aarch64__)
#include <arm_neon.h>

#define NEON_DOT 0
#include "simd_neon.h"

#include "path.inc.h"

#define ENTRY(name) .name = v_##name,
const trips_table trips_table_neon = {TRIPS_EACH_KERNEL(ENTRY)};
#endif
