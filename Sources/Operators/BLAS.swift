import COpenBLAS

/// Has OpenBLAS compute on the thread that calls it, once and for all: the pool shares out the work. To be asked for before
/// each use of OpenBLAS.
package let singleThreadedBLAS: Void = openblas_set_num_threads(1)

/// Ends the threads that OpenBLAS has started when it was loaded, so that they are not in the way. For programs when they
/// start: a computation that goes on in those threads would wait for them for ever.
package func endBLASThreads() {
    _ = singleThreadedBLAS
    openblas_end_threads()
}
