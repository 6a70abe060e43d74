//! Settings that are read again while the server runs (SIGHUP): all of them or none, and only those take
//! effect that can.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::{Effective, Reload, Sources, changes};
use crate::housekeeping::Housekeeper;
use crate::live::LiveSettings;
use crate::log::{self, Log};
use crate::metrics::Reloads;

/// What is in effect, and where it is read again.
pub(super) struct Settings<'a> {
    pub(super) sources: &'a Sources,
    pub(super) log: &'a Log,
    /// In effect: those that need a restart are as the server was started with them.
    pub(super) effective: Effective,
    /// Where the admin listener is.
    pub(super) admin: Option<SocketAddr>,
    pub(super) live: Arc<LiveSettings>,
    pub(super) housekeeper: &'a Housekeeper,
    pub(super) reloads: Arc<Reloads>,
}

impl Settings<'_> {
    /// Reads the settings again, puts those into effect that can be, and says of each that has changed what
    /// becomes of it. If they are refused, nothing changes.
    pub(super) fn reload(&mut self) {
        match self.read() {
            Ok(effective) => {
                self.apply(&effective);
                self.reloads.applied.add(1);
                self.reloads.is_refused.set(0);
            }
            Err(problems) => {
                for problem in problems {
                    tracing::error!(problem, "settings not reloaded");
                }
                self.reloads.refused.add(1);
                self.reloads.is_refused.set(1);
            }
        }
    }

    fn read(&self) -> Result<Effective, Vec<String>> {
        let effective = self.sources.resolve().map_err(|problems| {
            let problems = problems.iter().map(|problem| log::chain(problem));
            problems.collect::<Vec<String>>()
        })?;
        if let Some(file) = &self.effective.file
            && effective.file.as_ref() != Some(file)
        {
            // It may be being replaced: by defaults, everybody could come in.
            let found = match &effective.file {
                Some(other) => other.display().to_string(),
                None => "none".to_owned(),
            };
            let file = file.display();
            return Err(vec![format!(
                "{file}: expected the file of the start, found {found}"
            )]);
        }
        match self.admin {
            // The address can have changed with the token, and only the token would take effect.
            Some(address)
                if !address.ip().is_loopback() && effective.config.admin_token.is_none() =>
            {
                Err(vec![format!(
                    "admin_token: expected a token until the next start, since the admin listener \
                     is on {address}"
                )])
            }
            _ => Ok(effective),
        }
    }

    fn apply(&mut self, effective: &Effective) {
        let config = &effective.config;
        let changes = changes(&self.effective.resolved, &effective.resolved);
        self.live.store(Arc::new(self.live.load().renewed(config)));
        self.housekeeper.wake();
        self.log.set_level(log::level(config));
        log::warn_of_exposed(effective);
        for change in &changes {
            let (key, from, to) = (change.key, &change.from, &change.to);
            match change.reload {
                Reload::Live => tracing::info!(key, from, to, "setting changed"),
                Reload::Restart => tracing::warn!(key, from, to, "setting needs a restart"),
            }
        }
        let is_live = |key| {
            let change = changes.iter().find(|change| change.key == key);
            change.is_some_and(|change| change.reload == Reload::Live)
        };
        for (old, new) in self.effective.resolved.iter_mut().zip(&effective.resolved) {
            if is_live(old.key) {
                old.clone_from(new);
            }
        }
        self.effective.file.clone_from(&effective.file);
        tracing::info!(changes = changes.len(), "settings reloaded");
    }
}
