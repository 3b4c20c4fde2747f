#include <cblas.h>

// LAPACK's Cholesky factorization and inverse (netlib), which OpenBLAS contains; Debian's header package leaves them out.
// Matrices are column-major: `uplo` 'L' of a row-major matrix is its upper triangle.
void spotrf_(const char *uplo, const int *n, float *a, const int *lda, int *info);
void spotri_(const char *uplo, const int *n, float *a, const int *lda, int *info);
