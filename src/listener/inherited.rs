//! Listening sockets of the process that this one follows: nobody is refused while one takes the place of the other.

use std::os::fd::OwnedFd;

use tracing::warn;

use super::bind::bind_one;
use super::{BindError, Bound, Config, FileId, Passed};
use crate::net::addr::ListenAddr;

/// Those that nobody has taken yet.
#[derive(Debug, Default)]
pub struct Inherited(Vec<Heirloom>);

#[derive(Debug)]
struct Heirloom {
    /// The proxy entry; `None` = the admin endpoint.
    entry: Option<String>,
    /// As it was written in the configuration of the process before.
    asked: String,
    /// The file that the process before made for it.
    file: Option<FileId>,
    socket: OwnedFd,
}

impl Inherited {
    /// One more.
    pub fn add(
        &mut self,
        entry: Option<String>,
        asked: String,
        file: Option<FileId>,
        socket: OwnedFd,
    ) {
        self.0.push(Heirloom {
            entry,
            asked,
            file,
            socket,
        });
    }

    /// Binds every listener of an entry, or none; what it has inherited is neither bound nor passed.
    ///
    /// # Errors
    /// See [`BindError`].
    pub fn bind(
        &mut self,
        entry: Option<&str>,
        config: &Config,
        passed: &mut Passed,
    ) -> Result<Vec<Bound>, BindError> {
        let mut all = Vec::with_capacity(config.listen.len());
        for asked in &config.listen {
            let kept = self.take(entry, asked);
            for bound in &kept {
                bound.check_guarded(config.is_guarded())?;
                if let Err(error) = bound.dress(config) {
                    warn!(
                        event = "config_warning",
                        "{asked} keeps the permissions that it had: {error}"
                    );
                }
            }
            if kept.is_empty() {
                all.extend(bind_one(asked, config, passed)?);
            } else {
                all.extend(kept);
            }
        }
        Ok(all)
    }

    /// What nobody has taken, as far as it has a file: the process before leaves that to this one, too.
    pub fn unclaimed(self) -> Vec<Bound> {
        let with_file = self.0.into_iter().filter(|kept| kept.file.is_some());
        with_file
            .filter_map(|kept| {
                let asked = kept.asked.parse().ok()?;
                Bound::inherited(&asked, kept.file, kept.socket).ok()
            })
            .collect()
    }

    /// Those of this entry that were asked for by this address: one, or as many as systemd passed under a name. An address may have
    /// been another entry's; port 0 is another port for each. What is of no use is left out: its address is bound anew then.
    fn take(&mut self, entry: Option<&str>, asked: &ListenAddr) -> Vec<Bound> {
        let most = match asked {
            ListenAddr::Tcp(_) | ListenAddr::Unix(_) => 1,
            ListenAddr::Systemd(_) => usize::MAX,
        };
        let written = asked.to_string();
        let own = |kept: &Heirloom| kept.entry.as_deref() == entry && kept.asked == written;
        // The admin endpoint's is in use to the end of the process that has it.
        let changes_hands = entry.is_some()
            && !matches!(asked, ListenAddr::Tcp(at) if at.port() == 0)
            && !self.0.iter().any(own);
        let is_it = |kept: &mut Heirloom| {
            own(kept) || (changes_hands && kept.entry.is_some() && kept.asked == written)
        };
        let taken = self.0.extract_if(.., is_it).take(most);
        taken
            .filter_map(
                |kept| match Bound::inherited(asked, kept.file, kept.socket) {
                    Ok(bound) => {
                        if kept.file.is_some() && bound.file().is_none() {
                            warn!(
                                event = "config_warning",
                                "{asked} is somebody else's file by now, which is left alone: clients that connect there do not reach this \
                                 process"
                            );
                        }
                        Some(bound)
                    }
                    Err(error) => {
                        warn!(
                            event = "listener_not_taken_over",
                            addr = %asked,
                            "a listener of the process before is of no use: {error}"
                        );
                        None
                    }
                },
            )
            .collect()
    }
}
