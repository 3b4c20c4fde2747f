// All kernels of one instruction set, over its simd header; v_x is its variant of trips_x.
#include "vector_math.inc.h"

#include "epilogue.inc.h"
#include "sgemm.inc.h"
#include "attention.inc.h"
#include "rows.inc.h"
#include "convolution.inc.h"
#include "igemm.inc.h"
#include "iattention.inc.h"
#include "bits.inc.h"
#include "halves.inc.h"
