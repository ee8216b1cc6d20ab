//! What there has to be before anything is started: listeners, and a limit of open files.

use tracing::{info, warn};

use super::ExitError;
use crate::admin;
use crate::config::Config;
use crate::listener::{Bound, Inherited, Passed};
use crate::net::addr::ListenAddr;
use crate::net::socket;
use crate::worker::files::{FEW_SESSIONS, sessions_of};

/// Binds the listeners of every entry, in order; those that another process had are inherited.
pub(super) fn bind(
    config: &Config,
    inherited: &mut Inherited,
    mut passed: Passed,
) -> Result<Vec<Vec<Bound>>, ExitError> {
    let bound = config
        .proxies
        .iter()
        .map(|proxy| inherited.bind(Some(&proxy.name), &proxy.listener, &mut passed))
        .collect::<Result<Vec<_>, _>>()?;
    for name in passed.left() {
        warn!(
            event = "socket_unused",
            name,
            "systemd passed a socket that no `listen` names: write \"systemd:{name}\" where it belongs"
        );
    }
    Ok(bound)
}

/// Binds the admin endpoint. A port that is taken ends a process whose operator asked for it; where nobody did, it goes without:
/// another proxy on this host has it.
pub(super) fn bind_admin(
    config: &admin::Config,
    inherited: &mut Inherited,
) -> Result<Vec<Bound>, ExitError> {
    match inherited.bind(None, &config.listener, &mut Passed::nothing()) {
        Ok(bound) => {
            for bound in &bound {
                let addr = bound.addr();
                let url = match addr {
                    ListenAddr::Tcp(addr) => format!("http://{addr}/"),
                    ListenAddr::Unix(_) | ListenAddr::Systemd(_) => addr.to_string(),
                };
                info!(event = "admin_listening", addr = %addr, "status page and metrics: {url}");
            }
            Ok(bound)
        }
        Err(error) if config.is_required() => Err(error.into()),
        Err(error) => {
            warn!(
                event = "admin_off",
                "no status page and no metrics: {error}. Set admin.listen to another address, or to \"off\""
            );
            Ok(Vec::new())
        }
    }
}

/// Raises the limit of open files and gives the number of sessions it allows. `None` is as many as come.
pub(super) fn note_open_files() -> Option<u64> {
    let limit = socket::raise_open_files().unwrap_or_else(|e| {
        warn!(
            event = "few_open_files",
            "cannot raise the limit of open files: {e}"
        );
        socket::open_files()
    })?;
    let sessions = sessions_of(limit);
    if sessions < FEW_SESSIONS {
        warn!(
            event = "few_open_files",
            limit,
            sessions,
            "the limit of open files allows {sessions} sessions: raise it (LimitNOFILE= in the unit, or ulimit -n)"
        );
    }
    Some(sessions)
}
