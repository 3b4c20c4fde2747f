import COpenBLAS

/// Makes OpenBLAS compute on the calling thread alone, as the pool divides the work. To be read before each use of OpenBLAS: the
/// first reading does it.
package let singleThreadedBLAS: Void = openblas_set_num_threads(1)

/// Ends the threads that OpenBLAS starts when it is loaded; they would be in the way. To be called once, when a program starts: a
/// computation that still runs on those threads would wait for them for ever.
package func endBLASThreads() {
    _ = singleThreadedBLAS
    openblas_end_threads()
}
