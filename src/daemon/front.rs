//! What this process shows of itself: the admin endpoint, and what its service manager hears. One that follows another shows it when
//! it has taken its place.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::ExitError;
use super::manager::Manager;
use super::report::Progress;
use crate::admin::{self, Panel, Vitals};
use crate::listener::Bound;

/// Longest wait for the admin endpoint's thread, which ends last.
const ADMIN_END_LIMIT: Duration = Duration::from_millis(500);

/// See the head of this file.
pub(super) struct Front {
    admin_config: watch::Receiver<admin::Config>,
    /// Doubles of what the endpoint listens at.
    admin: Vec<Bound>,
    admin_end: CancellationToken,
    admin_thread: Option<oneshot::Receiver<()>>,
    panel: Option<Panel>,
    attending: Option<(Vitals, Progress)>,
    pub(super) manager: Arc<Manager>,
}

impl Front {
    pub(super) fn new(
        (admin, admin_config): (Vec<Bound>, watch::Receiver<admin::Config>),
        panel: Panel,
        attending: (Vitals, Progress),
    ) -> Self {
        Self {
            admin_config,
            admin,
            admin_end: CancellationToken::new(),
            admin_thread: None,
            panel: Some(panel),
            attending: Some(attending),
            manager: Arc::new(Manager::from_env()),
        }
    }

    /// Doubles of the admin endpoint's listeners.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub(super) fn doubles(&self) -> io::Result<Vec<Bound>> {
        self.admin.iter().map(Bound::double).collect()
    }

    /// Opens the admin endpoint, if there is to be one.
    ///
    /// # Errors
    /// When its thread cannot be made.
    pub(super) fn open(&mut self) -> Result<(), ExitError> {
        let (false, Some(panel)) = (self.admin.is_empty(), self.panel.take()) else {
            return Ok(());
        };
        let open = || {
            let config = self.admin_config.clone();
            admin::thread(self.doubles()?, config, panel, self.admin_end.clone())
        };
        let thread =
            open().map_err(|e| ExitError::runtime("cannot start the admin endpoint", &e))?;
        self.admin_thread = Some(thread);
        Ok(())
    }

    /// Tells the service manager from now on how things are.
    pub(super) fn attend(&mut self, tasks: &TaskTracker, end: &CancellationToken) {
        if let Some((vitals, progress)) = self.attending.take() {
            let manager = Arc::clone(&self.manager);
            tasks.spawn(manager.attend(vitals, progress, end.clone()));
        }
    }

    /// From now on the files of unix sockets are removed at the end of this process, or not.
    pub(super) fn own_files(&self, own: bool) {
        self.admin.iter().for_each(|bound| bound.own_file(own));
    }

    /// Closes the admin endpoint.
    pub(super) async fn close(&mut self) {
        self.admin_end.cancel();
        self.admin.clear();
        if let Some(thread) = self.admin_thread.take() {
            // Told when it has ended, or dropped: both are its end.
            let _ = timeout(ADMIN_END_LIMIT, thread).await;
        }
    }
}
