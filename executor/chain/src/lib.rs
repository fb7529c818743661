//! Chain access: liteserver client, masterchain-final watcher, V5R1 wallet.
