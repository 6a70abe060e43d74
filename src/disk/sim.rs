//! A data directory in memory that fails on request (written with the fault tests).
