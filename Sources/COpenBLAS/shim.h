#include <cblas.h>

// LAPACK's Cholesky factorization and inverse (netlib), which OpenBLAS contains; Debian's header package leaves them out.
// Matrices are column-major: `uplo` 'L' of a row-major matrix is its upper triangle.
void spotrf_(const char *uplo, const int *n, float *a, const int *lda, int *info);
void spotri_(const char *uplo, const int *n, float *a, const int *lda, int *info);

// OpenBLAS starts threads when it is loaded. They look for work for some time, and take processors from those that have some.
// This ends them; OpenBLAS starts them again where it needs them. A build without threads has no such function.
extern int blas_thread_shutdown_(void) __attribute__((weak));
static inline void openblas_end_threads(void) {
    if (blas_thread_shutdown_) blas_thread_shutdown_();
}
