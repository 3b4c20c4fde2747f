#include "table.h"

#if defined(__x86_64__)
#include <immintrin.h>

#pragma clang attribute push(__attribute__((target("avx2,avxvnni,fma,f16c,bmi2"))), apply_to = function)
#define IGEMM_VNNI 1
#include "simd_avx2.h"

#include "path.inc.h"
#pragma clang attribute pop

#define ENTRY(name) .name = v_##name,
const trips_table trips_table_avx2vnni = {TRIPS_EACH_KERNEL(ENTRY)};
#endif
