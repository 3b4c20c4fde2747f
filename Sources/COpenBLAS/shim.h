#include <cblas.h>

// LAPACK's Cholesky factorization (netlib), which OpenBLAS contains; Debian's header package leaves it out.
// The matrix is column-major: `uplo` 'L' of a row-major one is its upper triangle.
void spotrf_(const char *uplo, const int *n, float *a, const int *lda, int *info);

// OpenBLAS starts threads when it is loaded, which spin for some time and take processor time from others. This ends them;
// OpenBLAS starts them again when it needs them. Builds without threads lack the function.
extern int blas_thread_shutdown_(void) __attribute__((weak));
static inline void openblas_end_threads(void) {
    if (blas_thread_shutdown_) blas_thread_shutdown_();
}
