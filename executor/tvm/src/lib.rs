//! TVM and transaction phases behind one small API.
