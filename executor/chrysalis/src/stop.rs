//! When a process is asked to stop: Ctrl-C, and what service managers send.

/// Ready once the process is asked to stop.
///
/// # Errors
/// Where the system does not let it listen.
#[cfg(unix)]
pub(crate) async fn asked() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        stopped = tokio::signal::ctrl_c() => stopped,
        _ = terminate.recv() => Ok(()),
    }
}

/// Ready once the process is asked to stop.
///
/// # Errors
/// Where the system does not let it listen.
#[cfg(not(unix))]
pub(crate) async fn asked() -> std::io::Result<()> {
    tokio::signal::ctrl_c().await
}
