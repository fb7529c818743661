//! The developer's side: post a job from a wallet, follow it, decrypt the answer.
