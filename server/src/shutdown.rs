//! The signal that the server is stopping, for every task that waits.

use tokio::sync::watch;

/// The side that stops the server.
#[derive(Debug)]
pub struct ShutdownTrigger(watch::Sender<bool>);

/// The side that waits for it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Shutdown(watch::Receiver<bool>);

/// A new signal, not given yet.
#[must_use]
pub fn shutdown_signal() -> (ShutdownTrigger, Shutdown) {
    let (sender, receiver) = watch::channel(false);
    (ShutdownTrigger(sender), Shutdown(receiver))
}

impl ShutdownTrigger {
    /// Gives the signal. Dropping the trigger gives it too.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Shutdown {
    /// Returns once the signal was given.
    pub async fn requested(&self) {
        // An error means that the trigger was dropped, which is a stop too.
        let _ = self.0.clone().wait_for(|stopping| *stopping).await;
    }
}
