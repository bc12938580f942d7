//! Runs blocking code in threads and hands the results to async code, and back. std alone: no dependency, under any
//! executor or none.
