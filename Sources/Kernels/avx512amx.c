#include "table.h"

#if defined(__x86_64__)
#include <immintrin.h>

#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,amx-tile,amx-int8,avx2,fma,f16c,bmi2"))), apply_to = function)
#define IGEMM_VNNI 1
#define IGEMM_AMX 1
#include "simd_avx512.h"

#include "path.inc.h"
#pragma clang attribute pop

#define ENTRY(name) .name = v_##name,
const trips_table trips_table_avx512amx = {TRIPS_EACH_KERNEL(ENTRY)};
#endif
