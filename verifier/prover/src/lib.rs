//! What a message to the contracts needs besides the evidence itself: numbers that are expensive to find and cheap to
//! check. The contracts trust nothing in them.

pub mod p256;
