#include "onnx_schema.h"
