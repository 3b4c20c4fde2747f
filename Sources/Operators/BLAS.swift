import COpenBLAS

/// Makes OpenBLAS compute on the calling thread alone, as the pool divides the work. Read before each use of OpenBLAS; initialising
/// it on the first read makes the call.
package let singleThreadedBLAS: Void = openblas_set_num_threads(1)

/// Ends the threads that OpenBLAS starts when it is loaded, which would compete for the processors. To be called once, when a
/// program starts: a computation that runs on those threads would wait for them for ever.
package func endBLASThreads() {
    _ = singleThreadedBLAS
    openblas_end_threads()
}
